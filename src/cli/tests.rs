//! The promises of the command line: short help with examples everywhere, and flags that mean what they say.

use clap::{CommandFactory, Parser};

use super::args::{Cli, Command, MatrixCommand, Tool};
use super::matrix::{self, ExplainArgs};
use crate::config;

fn parse(line: &str) -> Result<Command, clap::Error> {
    Cli::try_parse_from(std::iter::once("patchbay").chain(line.split_whitespace())).map(|cli| cli.command)
}

fn explain_args(line: &str) -> ExplainArgs {
    match parse(&format!("matrix explain {line}")) {
        Ok(Command::Tool(Tool::Matrix(args))) => match args.command {
            Some(MatrixCommand::Explain(args)) => args,
            None => panic!("no explain in {line:?}"),
        },
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_definition_is_consistent() {
    Cli::command().debug_assert();
}

#[test]
fn help_of_every_subcommand_is_short_and_has_an_example_and_exit_codes() {
    fn walk(command: &clap::Command, above: &[&str]) {
        let name = command.get_name();
        let path = [above, &[name]].concat();
        // What is printed, not what could be: clap has a longer form for texts that this has not.
        let help = Cli::command().try_get_matches_from([&path[..], &["--help"]].concat()).unwrap_err().to_string();
        assert!(help.lines().count() <= 60, "{name} has {} lines", help.lines().count());
        assert!(help.contains("Example") && help.contains("  patchbay "), "{name} has no example:\n{help}");
        assert!(help.contains("Exit codes"), "{name} does not say its exit codes:\n{help}");
        command.get_subcommands().for_each(|below| walk(below, &path));
    }
    walk(&Cli::command(), &[]);
}

#[test]
fn interop_takes_a_deployment_or_makes_one_and_not_both() {
    let is_wrong = |line: &str| parse(&format!("interop {line}")).is_err();
    assert!(!is_wrong("--url http://h:8080 --rtmp rtmp://h:1935 --token t --key k --from cdn --to h5"));
    assert!(!is_wrong("--set transcode.threads=1 --client webrtc=aiortc --strict --seconds 3"));
    for line in ["--url https://h", "--url h:8080", "--url http://h --set a=b", "--from udp", "--client webrtc=x", "--seconds 1"] {
        assert!(is_wrong(line), "{line}");
    }
}

#[test]
fn demo_listens_on_loopback_unless_told_otherwise() {
    let listen = |line: &str| match parse(line) {
        Ok(Command::Demo(args)) => {
            let config = config::from_text("f", "", &args.overrides()).unwrap();
            [config.http.listen, config.rtmp.listen, config.webrtc.listen].map(|a| a.to_string())
        }
        other => panic!("{other:?}"),
    };
    assert_eq!(listen("demo"), ["127.0.0.1:8080", "127.0.0.1:1935", "127.0.0.1:8000"]);
    assert_eq!(listen("demo --lan --rtmp-port 11935"), ["0.0.0.0:8080", "0.0.0.0:11935", "0.0.0.0:8000"]);
    assert_eq!(listen("demo --bind ::1 --http-port 9080"), ["[::1]:9080", "[::1]:1935", "[::1]:8000"]);
    assert!(parse("demo --lan --bind 10.0.0.1").is_err());
}

#[test]
fn wrong_usage_ends_with_2() {
    for line in ["", "runn", "check", "matrix explain --from rtmp", "matrix explain --from file --to rtmp", "run --set nonsense"] {
        assert_eq!(parse(line).unwrap_err().exit_code(), 2, "{line:?}");
    }
}

#[test]
fn set_flags_reach_the_configuration() {
    let Ok(Command::Run(args)) = parse("run --set limits.drain_s=7 --set log.format=json") else { panic!() };
    let config = config::from_text("f", "", &args.set).unwrap();
    assert_eq!((config.limits.drain_s, config.log.format), (7, config::LogFormat::Json));
}

#[test]
fn explain_names_rule_verdicts_and_reasons_as_text_and_as_json() {
    let line = "--from rtmp --to webrtc --video h264:high:bframes=2 --audio aac:44100:2";
    let text = matrix::explain(&explain_args(line)).unwrap();
    assert!(text.contains("matrix:rtmp>webrtc") && text.contains("B-frames"), "{text}");
    let json = matrix::explain(&explain_args(&format!("{line} --json"))).unwrap();
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json["from"], "rtmp");
    assert_eq!(json["plan"]["rule"]["id"], "matrix:rtmp>webrtc");
    assert!(matrix::explain(&explain_args("--from rtmp --to webrtc --video aac")).is_err());
}

#[test]
fn explain_takes_rules_of_a_configuration_first() {
    let file = std::env::temp_dir().join(format!("patchbay-rules-{}.toml", std::process::id()));
    std::fs::write(&file, "[[rules]]\nname = \"mute\"\nstream = \"quiet/**\"\naudio = \"drop\"\n").unwrap();
    let line = |stream| format!("--from rtmp --to webrtc --stream {stream} --config {}", file.display());
    let quiet = matrix::explain(&explain_args(&line("quiet/a"))).unwrap();
    let loud = matrix::explain(&explain_args(&line("loud/a"))).unwrap();
    std::fs::remove_file(&file).unwrap();
    assert!(quiet.contains("mute"), "{quiet}");
    assert!(!loud.contains("mute"), "{loud}");
}
