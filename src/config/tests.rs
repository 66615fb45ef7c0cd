//! The promises of the configuration: every mistake is named with line and key, all of them at once, and the
//! documents are those of the types.

use super::*;

/// A file that sets every kind of key. One key to a line: the mutations count lines.
const FULL: &str = r#"[http]
listen = "127.0.0.1:8081"
cors_origins = ["https://app.example.org"]
trusted_proxies = ["10.0.0.0/8"]
[api]
token = "a-long-token"
[auth]
open = true
[auth.jwt]
secret = "a secret of at least thirty-two bytes"
algorithms = ["HS256", "HS512"]
audience = ["patchbay"]
issuer = ["https://id.example.org"]
leeway_s = 30
needed_for = ["publish", "play"]
revoked = ["17"]
[auth.webhook]
url = "http://127.0.0.1:8085/hook"
events = ["publish", "stop"]
form = "srs"
secret = "a-secret"
timeout_ms = 500
when_down = "cached"
cache_s = 60
calls_max = 8
[rtmp]
listen = "127.0.0.1:1936"
tls_listen = "127.0.0.1:1937"
tls_cert_file = "cert.pem"
tls_key_file = "key.pem"
[webrtc]
listen = "127.0.0.1:8001"
public_addresses = ["192.0.2.1"]
workers = 2
[transcode]
threads = 2
jobs_max = 10
linger_ms = 1
cpu_budget = 1.5
ladder = ["size", "audio_only"]
nice = 0
disable_encoders = ["mpeg1"]
disable_decoders = ["vp9"]
[limits]
streams_max = 10
sessions_max = 20
per_address_sessions_max = 5
per_address_half_open_max = 6
per_address_new_per_s = 7
publisher_grace_s = 30
drain_s = 1
[outbound]
allow = ["10.0.0.0/8", "cdn.internal"]
[log]
level = "debug"
format = "json"
[[routes]]
stream = "wx/**"
kind = "miniprogram"
publish_key = "publish"
play_key = "play"
[[routes]]
stream = "open/**"
publish = "anyone"
play = "anyone"
[[rules]]
name = "phones"
from = ["rtmp", "miniprogram"]
to = ["webrtc"]
stream = "phone/**"
video = { codec = "h264", size = "640x360", bitrate_kbps = 600 }
audio = "auto"
[[pushes]]
name = "cdn-main"
stream = "live/demo"
url = "rtmp://cdn.example.org/live"
stream_key = "stream-key"
backup_url = "rtmps://cdn2.example.org/live"
backup_stream_key = "other-key"
backup_hold_s = 60
provider = "aliyun"
key = "account-key"
ca_file = "ca.pem"
kind = "cdn"
enabled = false
"#;

fn parse(text: &str) -> Result<Config, Problems> {
    from_text("patchbay.toml", text, &[])
}

#[track_caller]
fn check_message(text: &str, expected: &str) {
    assert_eq!(parse(text).unwrap_err().to_string(), expected);
}

/// Asserts that `text` is refused on `line` for `key`.
#[track_caller]
fn check_refused(text: &str, line: usize, key: &str) {
    let message = parse(text).expect_err(key).to_string();
    let place = format!("patchbay.toml:{line}:");
    assert!(message.lines().any(|l| l.starts_with(&place) && l.contains(key)), "{place} {key} in:\n{message}\nof:\n{text}");
}

#[test]
fn an_empty_file_is_valid_and_is_the_default() {
    assert_eq!(parse("").unwrap(), Config::default());
}

#[test]
fn the_full_sample_is_valid() {
    let config = parse(FULL).unwrap();
    assert_eq!(config.http.listen.port(), 8081);
    assert_eq!(config.webrtc.workers, 2);
    assert_eq!(config.pushes[0].target().unwrap().to_string(), "rtmp://cdn.example.org/live/***");
    assert_eq!(config.routes[0].kind, Some(routing::RtmpKind::Miniprogram));
    assert!(config.routes[0].stream.matches("wx/a/b"));
}

#[test]
fn a_stream_key_with_slashes_is_hidden_whole() {
    let text = "[[pushes]]\nname = \"a\"\nstream = \"live/a\"\nurl = \"rtmp://cdn.example.org/live\"\nstream_key = \"first/second\"\n";
    let config = parse(text).unwrap();
    assert_eq!(config.pushes[0].target().unwrap().to_string(), "rtmp://cdn.example.org/live/***");
    check_refused(&text.replace("/live\"", "/live?k=1\""), 4, "pushes[0].url");
}

/// The lines of [`FULL`] that set a key: number, key, value.
fn settings() -> Vec<(usize, &'static str, &'static str)> {
    let lines = FULL.lines().enumerate();
    lines.filter_map(|(i, line)| line.split_once(" = ").map(|(key, value)| (i + 1, key, value))).collect()
}

fn with_line(number: usize, replacement: &str) -> String {
    let lines = FULL.lines().enumerate().map(|(i, line)| if i + 1 == number { replacement } else { line });
    lines.collect::<Vec<_>>().join("\n") + "\n"
}

#[test]
fn every_mutation_of_every_key_is_refused_with_its_line_and_key() {
    let mut count = 0;
    for (line, key, value) in settings() {
        let misspelt = [format!("{key}x"), key[..key.len() - 1].to_owned() + "q", key.to_uppercase()];
        for typo in misspelt {
            check_refused(&with_line(line, &format!("{typo} = {value}")), line, &typo);
            count += 1;
        }
        let nonsense = match value.as_bytes()[0] {
            b'"' => ["17", "[[1]]"],
            b'[' => ["false", "[17]"],
            _ => ["\"four\"", "[1]"],
        };
        for wrong in nonsense.into_iter().chain(["1979-05-27"]) {
            check_refused(&with_line(line, &format!("{key} = {wrong}")), line, key);
            count += 1;
        }
    }
    assert!(count >= 100, "{count} mutations");
}

#[test]
fn every_misspelt_section_is_refused_with_its_line() {
    for (i, line) in FULL.lines().enumerate().filter(|(_, line)| line.starts_with('[')) {
        let name = line.trim_matches(['[', ']']);
        check_refused(&with_line(i + 1, &line.replace(name, &format!("{name}s"))), i + 1, &format!("{name}s"));
    }
}

#[test]
fn several_problems_come_at_once_with_line_column_and_what_would_be_right() {
    check_message(
        "[rtmp]\n  lisen = \"0.0.0.0:1935\"\n[webrtc]\nworkers = \"four\"\n[log]\nformat = \"jsno\"\n[limits]\ndrain_s = 601\n",
        "patchbay.toml:2:3: rtmp.lisen: unknown key; did you mean \"listen\"?\n\
         patchbay.toml:4:11: webrtc.workers: expected an integer of at least 0, found \"four\"\n\
         patchbay.toml:6:10: log.format: expected one of \"auto\", \"text\", \"json\", found \"jsno\"; did you mean \"json\"?\n\
         patchbay.toml:8:11: limits.drain_s: expected an integer from 0 to 600, found 601\n\
         4 problems; nothing was changed.",
    );
}

#[test]
fn values_that_types_refuse_are_all_named_too() {
    check_message(
        "[http]\nlisten = \"localhost\"\n[webrtc]\npublic_addresses = [\"10.0.0.1\", \"10.0.0.x\"]\n\
         [[pushes]]\nname = \"a\"\nstream = \"../x\"\nurl = \"http://u:pw@h/x\"\n\
         [[pushes]]\nname = \"b\"\nstream = \"a//b\"\nurl = \"rtmp://h\"\n",
        "patchbay.toml:2:10: http.listen: expected ADDRESS:PORT in quotes, such as \"0.0.0.0:8080\", found \"localhost\"\n\
         patchbay.toml:4:33: webrtc.public_addresses[1]: expected an IP address in quotes, found \"10.0.0.x\"\n\
         patchbay.toml:7:10: pushes[0].stream: a part of a stream name may not begin with '.', found \"../x\"\n\
         patchbay.toml:8:7: pushes[0].url: scheme is neither rtmp nor rtmps; expected rtmp://HOST[:PORT]/APP/STREAM, or without /STREAM where there is a stream_key\n\
         patchbay.toml:11:10: pushes[1].stream: stream name has an empty part, found \"a//b\"\n\
         patchbay.toml:12:7: pushes[1].url: no stream name; expected rtmp://HOST[:PORT]/APP/STREAM, or without /STREAM where there is a stream_key\n\
         6 problems; nothing was changed.",
    );
}

#[test]
fn a_missing_key_is_named_at_its_table() {
    check_message(
        "[[pushes]]\nname = \"a\"\nurl = \"rtmp://h/x/y\"\n",
        "patchbay.toml:1:1: pushes[0].stream: missing; expected a string\n1 problem; nothing was changed.",
    );
}

#[test]
fn broken_syntax_is_named_with_line_and_column() {
    check_refused("[http]\nlisten = = 3\n", 2, "extra");
    check_refused("[http]\nlisten = \"1.2.3.4:5\"\nlisten = \"1.2.3.4:6\"\n", 3, "duplicate");
}

#[test]
fn names_and_ports_taken_twice_are_refused() {
    check_message(
        "[http]\nlisten = \"127.0.0.1:1935\"\n[[pushes]]\nname = \"a\"\nstream = \"x\"\nurl = \"rtmp://h/x/y\"\n\
         [[pushes]]\nname = \"a\"\nstream = \"y\"\nurl = \"rtmp://h/x/z\"\n",
        "patchbay.toml:2:10: http.listen: 127.0.0.1:1935 is taken by rtmp.listen (Tcp 0.0.0.0:1935), by default\n\
         patchbay.toml:8:8: pushes[1].name: \"a\" names another push already, line 4\n\
         2 problems; nothing was changed.",
    );
}

#[test]
fn a_push_name_is_made_of_plain_characters() {
    check_refused("[[pushes]]\nname = \"a b\"\nstream = \"x\"\nurl = \"rtmp://h/x/y\"\n", 2, "pushes[0].name");
}

#[test]
fn log_levels_and_web_origins_that_would_do_nothing_are_refused() {
    check_message(
        "[log]\nlevel = \"warn,patchbay_rtmp=inof\"\n[http]\ncors_origins = [\"*\", \"https://a.example/\"]\n",
        "patchbay.toml:2:9: log.level: \"inof\" is no level (known: off, error, warn, info, debug, trace); did you mean \"info\"?\n\
         patchbay.toml:4:22: http.cors_origins[1]: expected \"*\" or SCHEME://HOST[:PORT] such as \"https://app.example.org\", \
         found \"https://a.example/\"\n2 problems; nothing was changed.",
    );
    assert!(parse("[log]\nlevel = \"info,patchbay_rtmp::proto=debug\"\n[http]\ncors_origins = [\"http://localhost:3000\"]\n").is_ok());
}

#[test]
fn a_push_without_a_stream_to_push_to_is_refused() {
    let push = "[[pushes]]\nname = \"a\"\nstream = \"x\"\nurl = \"rtmp://h/live\"\n";
    check_refused(push, 4, "pushes[0].url: no stream name");
    assert!(parse(&format!("{push}stream_key = \"k\"\n")).is_ok());
    for refused in ["stream_key = \"change-me\"", "stream_key_file = \"/nonexistent\""] {
        let problems = parse(&format!("{push}{refused}\n")).unwrap_err();
        assert_eq!(problems.list.len(), 1, "{problems}");
    }
}

#[test]
fn a_pull_names_its_streams_after_the_host_and_only_there() {
    let pull = |stream: &str, url: &str| format!("[[pulls]]\nstream = \"{stream}\"\nurl = \"{url}\"\n");
    check_refused(&pull("cam/*", "rtmp://h/live/a"), 3, "pulls[0].url: needs {stream} or {name}");
    check_refused(&pull("cam/*", "rtmp://{name}.h/live/a"), 3, "pulls[0].url: viewers choose the names");
    check_refused(&pull("a", "rtmp://h/live"), 3, "pulls[0].url: no stream name");
    check_refused(&pull("a", "rtmp://h/{stream}"), 3, "pulls[0].url: no stream name");
    assert!(parse(&pull("cam/*", "rtmp://h/{stream}")).is_ok());
    check_refused(&pull("../a", "rtmp://h/live/a"), 2, "pulls[0].stream: no stream fits");
    let target = |url: &str| parse(&pull("cam/**", url)).unwrap().pulls[0].target(&"cam/hall/1".parse().unwrap());
    assert_eq!(target("rtmp://h/live/{name}?from={stream}"), "rtmp://h/live/1?from=cam/hall/1");
    assert_eq!(target("rtmps://h:444/{stream}"), "rtmps://h:444/cam/hall/1");
    let config = parse(&format!("{}wait_s = 9\nidle_s = 2\n", pull("a", "rtmp://h/live/k3y-of-a"))).unwrap();
    assert_eq!((config.pulls[0].idle().as_secs(), config.pulls[0].shown_url().as_str()), (9, "rtmp://h/live/***"));
    assert!(!format!("{config:?}").contains("k3y-of-a"));
    let config = parse(&pull("a", "rtmp://h/live/a?token=abc/def")).unwrap();
    assert_eq!(config.pulls[0].shown_url(), "rtmp://h/live/***");
}

#[test]
fn lists_have_an_end() {
    let push = |i| format!("[[pushes]]\nname = \"p{i}\"\nstream = \"x\"\nurl = \"rtmp://h/x/y\"\n");
    assert_eq!(parse(&(0..200).map(push).collect::<String>()).unwrap().pushes.len(), 200);
    check_refused(&(0..201).map(push).collect::<String>(), 1, "pushes: expected at most 200 elements, found 201");
}

#[test]
fn a_pattern_no_name_can_fit_is_refused() {
    check_refused("[[routes]]\nstream = \"/live/**\"\n", 2, "routes[0].stream");
    check_refused("[[rules]]\nstream = \"a b\"\n", 2, "rules[0].stream");
}

fn environment(list: &[(&str, &str)]) -> Vec<Override> {
    Override::from_environment(list.iter().map(|(name, value)| (name.into(), value.into())))
}

#[test]
fn environment_and_flags_override_the_file_in_this_order() {
    let text = "[http]\nlisten = \"127.0.0.1:1\"\n[limits]\ndrain_s = 1\n[log]\nlevel = \"warn\"\n";
    let mut overrides = environment(&[
        ("PATCHBAY__LIMITS__DRAIN_S", "2"),
        ("PATCHBAY__LOG__LEVEL", "debug"),
        ("PATCHBAY__WEBRTC__PUBLIC_ADDRESSES", "192.0.2.1, 192.0.2.2"),
        ("PATCHBAY__PUSHES__0__NAME", "p"),
        ("PATCHBAY__PUSHES__0__STREAM", "live/a"),
        ("PATCHBAY__PUSHES__0__URL", "rtmp://h/a/b"),
        ("PATCHBAY_CONFIG", "not an override"),
    ]);
    overrides.push(Override::flag("log.level", "trace"));
    let config = from_text("f", text, &overrides).unwrap();
    assert_eq!(config.http.listen.port(), 1);
    assert_eq!(config.webrtc.public_addresses.len(), 2);
    assert_eq!(config.limits.drain_s, 2);
    assert_eq!(config.log.level, "trace");
    assert_eq!(config.pushes[0].name, "p");
}

#[test]
fn wrong_overrides_are_refused_like_wrong_keys() {
    let mut overrides = environment(&[
        ("PATCHBAY__RTMP__LISEN", "x"),
        ("PATCHBAY__LIMITS__DRAIN_S", "soon"),
        ("PATCHBAY__PUSHES__3__NAME", "p"),
        ("PATCHBAY__HTTP", "x"),
    ]);
    overrides.push(Override::flag("log.format.x", "text"));
    assert_eq!(
        from_text("f", "", &overrides).unwrap_err().to_string(),
        "environment PATCHBAY__HTTP: http: is a table; set one of its keys\n\
         environment PATCHBAY__LIMITS__DRAIN_S: limits.drain_s: expected an integer from 0 to 600, found \"soon\"\n\
         environment PATCHBAY__PUSHES__3__NAME: pushes[3]: the list has 0 elements; the next is 0\n\
         environment PATCHBAY__RTMP__LISEN: rtmp.lisen: unknown key; did you mean \"listen\"?\n\
         --set log.format.x: log.format.x: unknown key; it has no keys\n\
         5 problems; nothing was changed."
    );
}

#[test]
fn every_scalar_key_can_be_set_by_its_path() {
    for (section, schema) in schema::keys(schema::root()).unwrap() {
        for (key, schema) in schema::keys(schema).into_iter().flatten() {
            let Some(default) = schema.get("default").filter(|d| d.is_string() || d.is_number() || d.is_boolean()) else { continue };
            let text = default.as_str().map_or_else(|| default.to_string(), str::to_owned);
            let name = format!("PATCHBAY__{}__{}", section.to_uppercase(), key.to_uppercase());
            assert_eq!(from_text("f", "", &environment(&[(&name, &text)])).unwrap(), Config::default(), "{name}");
        }
    }
}

#[test]
fn secrets_are_read_from_files_and_never_shown() {
    let file = std::env::temp_dir().join(format!("patchbay-secret-{}", std::process::id()));
    std::fs::write(&file, "from-a-file\n").unwrap();
    let path = file.to_str().unwrap();
    let text = format!("[api]\ntoken_file = {path:?}\n");
    let config = parse(&text).unwrap();
    let both = parse(&(text.clone() + "token = \"x\"\n")).unwrap_err().to_string();
    let stronger = from_text("f", &text, &environment(&[("PATCHBAY__API__TOKEN", "from-env")])).unwrap();
    std::fs::remove_file(&file).unwrap();
    assert_eq!(config.api.token.as_ref().unwrap().reveal(), "from-a-file");
    assert_eq!(stronger.api.token.unwrap().reveal(), "from-env");
    assert!(!format!("{config:?}").contains("from-a-file"));
    assert!(both.contains("patchbay.toml:2:1: api.token_file: \"token\" is given as well"), "{both}");
    check_refused(&text, 2, "api.token_file");
}

#[test]
fn secrets_never_appear_in_messages() {
    for text in ["[api]\ntoken = \"change-me-s3cret\"\n", "[[pushes]]\nname=\"s3\"\nstream=\"x\"\nurl=\"http://u:s3cret@h/x\"\n"] {
        let message = parse(text).unwrap_err().to_string();
        assert!(!message.contains("s3cret"), "{message}");
    }
}

#[test]
fn files_that_attack_are_refused_without_a_crash() {
    for depth in [100, 10_000, 200_000] {
        for (open, close) in [("[", "]"), ("{a=", "}")] {
            assert!(parse(&format!("x = {}1{}", open.repeat(depth), close.repeat(depth))).is_err());
            assert!(parse(&format!("x = {}", open.repeat(depth))).is_err());
        }
        assert!(parse(&format!("{}a = 1", "a.".repeat(depth))).is_err());
        assert!(parse(&format!("[{}a]\n", "a.".repeat(depth))).is_err());
    }
    for text in ["\u{0}", "\u{feff}[http]\nlisten = 1", "x = \"", "[rules]", "rules = {}", "[[http]]", "http = 1", "routes = [1, {}]"] {
        assert!(parse(text).is_err(), "{text:?}");
    }
}

#[test]
fn no_mutilated_file_crashes_the_loader() {
    let mut seed = 1u64;
    let mut below = |n: usize| {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (seed >> 33) as usize % n
    };
    for _ in 0..2_000 {
        let mut text: Vec<char> = FULL.chars().collect();
        for _ in 0..3 {
            let at = below(text.len() - 20);
            match below(3) {
                0 => drop(text.drain(at..at + 1 + below(20))),
                1 => text.insert(at, ['[', ']', '"', '=', '.', '\n', '{', '9', 'é', '#'][below(10)]),
                _ => text.swap(at, at + 1 + below(19)),
            }
        }
        // The result may be either; what counts is that there is one, and that it prints.
        if let Err(problems) = parse(&text.into_iter().collect::<String>()) {
            assert!(!problems.list.is_empty() && !problems.to_string().is_empty());
        }
    }
}

/// Compares `text` with a file of the repository; `UPDATE_EXPECT=1` rewrites the file.
#[track_caller]
fn check_file(name: &str, text: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(name);
    if std::env::var_os("UPDATE_EXPECT").is_some() {
        std::fs::write(&path, text).unwrap();
    }
    let kept = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(kept == text, "{name} is not what the types say; run the test with UPDATE_EXPECT=1");
}

#[test]
fn the_documents_are_those_of_the_types() {
    check_file("docs/configuration.md", &markdown());
    check_file("examples/patchbay.toml", &example());
}

#[test]
fn every_key_is_documented() {
    #[track_caller]
    fn walk(schema: &Json, path: &str) {
        for (key, schema) in schema::keys(schema).into_iter().flatten() {
            let path = format!("{path}.{key}");
            assert!(schema["description"].as_str().is_some_and(|d| !d.is_empty()), "{path} has no description");
            walk(schema, &path);
            schema::items(schema).into_iter().chain(schema::alternatives(schema)).for_each(|s| walk(s, &path));
        }
    }
    walk(schema::root(), "");
}

#[test]
fn the_example_is_valid_as_it_is_and_with_every_comment_taken_up() {
    assert_eq!(parse(&example()).unwrap(), Config::default());
    let sample = example();
    let taken_up = sample.lines().map(|line| match line.strip_prefix('#') {
        Some(setting) if !setting.starts_with(' ') => format!("{}\n", setting.replace("change-me", "my").replace("= \"\"", "= \"x\"")),
        _ => format!("{line}\n"),
    });
    // Other forms of a key that is given already.
    let others = ["_file = ", "public_key = ", "jwks = "];
    let is_other = |line: &str| !line.starts_with("tls_") && others.iter().any(|key| line.contains(key));
    let text: String = taken_up.filter(|line| !is_other(line)).collect();
    let config = parse(&text).unwrap_or_else(|e| panic!("{e}\n{text}"));
    assert_eq!((config.routes.len(), config.rules.len(), config.pushes.len(), config.pulls.len()), (1, 1, 1, 1));
}

#[test]
fn the_sample_files_are_valid_once_their_secrets_are_chosen() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples");
    let files = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    for file in files.filter(|f| f.extension().is_some_and(|e| e == "toml")) {
        let text = std::fs::read_to_string(&file).unwrap();
        if let Err(e) = parse(&text.replace("change-me", "my")) {
            panic!("{}: {e}", file.display());
        }
    }
}
