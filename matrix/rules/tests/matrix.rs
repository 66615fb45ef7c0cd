//! The default matrix cell by cell, the page generated from it, and rules as people write them.

use patchbay_media::Codec;
use patchbay_rules::{
    Abilities, Action, EndpointKind, Policy, ReasonCode, Rule, RuleTable, Size, docs_page, explain, measured_section, symbol, text_table,
    with_measured_section,
};

/// The founding table, as it was given: six kinds, every pair.
const FOUNDING: &str = "
    webrtc      = V A A ? A
    h5          V = V V V V
    miniprogram A V = = ? =
    rtmp        A V = = ? =
    udp         ? V ? ? = ?
    cdn         A V = = ? =
";

fn founding() -> impl Iterator<Item = (EndpointKind, EndpointKind, char)> {
    let rows = FOUNDING.lines().filter(|l| !l.trim().is_empty());
    let kinds: Vec<EndpointKind> = rows.clone().map(|l| l.split_whitespace().next().unwrap().parse().unwrap()).collect();
    rows.zip(kinds.clone()).flat_map(move |(line, from)| {
        let cells: Vec<char> = line.split_whitespace().skip(1).map(|c| c.chars().next().unwrap()).collect();
        kinds.clone().into_iter().zip(cells).map(move |(to, cell)| (from, to, cell)).collect::<Vec<_>>()
    })
}

#[test]
fn every_cell_of_the_founding_table_is_as_given() {
    assert_eq!(founding().count(), 36);
    for (from, to, cell) in founding() {
        assert_eq!(symbol(from, to).sign(), cell, "{from} to {to}");
    }
}

#[test]
fn every_cell_does_what_its_symbol_says_for_usual_sources() {
    let (rules, able) = (RuleTable::default(), Abilities::all());
    for (from, to, cell) in founding() {
        let plan = explain(&rules, &able, (from, to), "live/x", None, None).unwrap().plan;
        let transcodes = |action| matches!(action, Action::Transcode(_));
        let got = (transcodes(plan.video.action), transcodes(plan.audio.action));
        match cell {
            '=' => assert_eq!(got, (false, false), "{from} to {to}: {plan}"),
            'A' => assert_eq!(got, (false, true), "{from} to {to}: {plan}"),
            'V' => assert_eq!(got, (true, true), "{from} to {to}: {plan}"),
            _ => assert_ne!(plan.video.action, Action::Drop, "{from} to {to}: {plan}"),
        }
        assert_eq!(plan.rule.id.as_ref(), format!("matrix:{from}>{to}"));
    }
}

#[test]
fn the_audio_cells_convert_between_opus_and_aac() {
    let (rules, able) = (RuleTable::default(), Abilities::all());
    for (from, to, want) in [("rtmp", "webrtc", Codec::Opus), ("webrtc", "rtmp", Codec::Aac), ("webrtc", "miniprogram", Codec::Aac)] {
        let plan = explain(&rules, &able, (from.parse().unwrap(), to.parse().unwrap()), "x", None, None).unwrap().plan;
        assert!(matches!(plan.audio.action, Action::Transcode(t) if t.codec() == want), "{plan}");
    }
}

#[test]
fn the_text_table_has_every_kind_and_symbol() {
    let text = text_table();
    for kind in EndpointKind::ALL {
        assert!(text.contains(kind.name()), "{text}");
    }
    let rtmp = text.lines().find(|l| l.starts_with("rtmp")).unwrap();
    assert_eq!(rtmp.split_whitespace().collect::<Vec<_>>(), ["rtmp", "A", "V", "=", "=", "?", "=", "?", "="]);
}

#[test]
fn the_page_in_docs_is_the_generated_one() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/matrix.md");
    let on_disk = std::fs::read_to_string(path).unwrap_or_default();
    let generated = docs_page(measured_section(&on_disk).unwrap_or_default());
    if std::env::var_os("UPDATE_EXPECT").is_some() {
        std::fs::write(path, &generated).unwrap();
        return;
    }
    assert!(on_disk == generated, "docs/matrix.md is stale: UPDATE_EXPECT=1 cargo test --release -p patchbay-rules rewrites it");
}

#[test]
fn the_measured_section_is_kept_when_the_page_is_made_again_and_can_be_replaced() {
    let page = docs_page("| a |\n");
    assert_eq!(measured_section(&page), Some("| a |\n"));
    assert_eq!(docs_page(measured_section(&page).unwrap()), page);
    assert_eq!(with_measured_section(&page, "| b |\n"), Some(docs_page("| b |\n")));
    assert_eq!((measured_section("# Page"), with_measured_section("# Page", "x")), (None, None));
}

#[derive(serde::Deserialize, serde::Serialize, Debug, PartialEq)]
struct File {
    rules: Vec<Rule>,
}

fn parse(text: &str) -> Result<Vec<Rule>, String> {
    toml::from_str::<File>(text).map(|f| f.rules).map_err(|e| e.to_string())
}

#[test]
fn rules_read_as_people_write_them() {
    let text = r#"
        [[rules]]
        name = "hd"
        from = ["rtmp"]
        to = ["webrtc"]
        stream = "live/**"
        video = "auto"
        audio = { codec = "opus", bitrate_kbps = 96 }
        [[rules]]
        video = { codec = "h264", size = "640x360", fps = 15, gop_ms = 1000 }
        audio = "drop"
    "#;
    let rules = parse(text).unwrap();
    let Policy::Transcode(audio) = rules[0].audio else { panic!("{:?}", rules[0]) };
    assert_eq!((audio.codec, audio.bitrate_kbps, audio.rate), (Some(Codec::Opus), Some(96), None));
    assert_eq!((rules[0].video, &rules[0].from[..]), (Policy::Auto, &[EndpointKind::Rtmp][..]));
    let Policy::Transcode(video) = rules[1].video else { panic!("{:?}", rules[1]) };
    assert_eq!((video.size, video.fps), (Some(Size { width: 640, height: 360 }), Some(15)));
    assert_eq!((rules[1].audio, rules[1].from.len(), rules[1].stream.as_str()), (Policy::Drop, 0, "**"));
    // and are written back the same
    let written = toml::to_string(&File { rules: rules.clone() }).unwrap();
    assert_eq!(parse(&written).unwrap(), rules);
}

#[test]
fn mistakes_in_rules_are_told_in_words() {
    for (text, say) in [
        ("form = [\"rtmp\"]", "unknown field `form`"),
        ("from = [\"rtpm\"]", "unknown variant `rtpm`"),
        ("video = \"copy\"", "\"auto\", \"pass\", \"drop\""),
        ("video = { codec = \"opus\" }", "opus is no video codec"),
        ("video = { codec = \"h266\" }", "no codec is named \"h266\""),
        ("video = { size = \"1281x720\" }", "both sides even"),
        ("video = { bitrate_kbps = -5 }", "-5 is out of range, 16 to 100000"),
        ("audio = { channels = 6 }", "6 is out of range, 1 to 2"),
        ("audio = { fps = 5 }", "unknown field `fps`"),
        ("audio = 5", "\"transcode\" or a table"),
        ("stream = \"\"", "may not be empty"),
    ] {
        let error = parse(&format!("[[rules]]\n{text}\n")).unwrap_err();
        assert!(error.contains(say), "{text}: {error}");
    }
    let error = "webrct".parse::<EndpointKind>().unwrap_err();
    assert!(error.to_string().contains("did you mean webrtc?"), "{error}");
}

#[test]
fn the_schema_of_a_rule_names_its_keys() {
    let schema = serde_json::to_string(&schemars::schema_for!(Rule)).unwrap();
    for key in ["stream", "bitrate_kbps", "gop_ms", "miniprogram", "transcode", "\"opus\"", "\"h264\""] {
        assert!(schema.contains(key), "{key} is missing: {schema}");
    }
}

#[test]
fn every_reason_code_is_named_as_it_is_serialised() {
    for code in ReasonCode::ALL {
        assert_eq!(serde_json::to_value(code).unwrap(), code.name());
        assert!(!code.about().is_empty());
    }
}
