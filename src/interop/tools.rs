//! Which clients are installed here, and what to install for the others.
//!
//! Refuses: to start any of them.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::str::FromStr;

/// A client that can be used, or why not and what to do.
pub type Found<T> = Result<T, String>;

/// The clients of one machine.
pub struct Tools {
    /// FFmpeg's program.
    pub ffmpeg: Found<PathBuf>,
    /// Node with Chromium and `browser.mjs`.
    pub chromium: Found<Script>,
    /// Node with Chromium, stock jsmpeg and `jsmpeg.mjs`.
    pub jsmpeg: Found<Script>,
    /// Python with aiortc and `aiortc_client.py`.
    pub aiortc: Found<Script>,
    /// nginx with its RTMP module, by `nginx_rtmp.sh`.
    pub nginx: Found<Script>,
    /// Whose WebRTC is wanted; the browser's when not said.
    pub webrtc: Option<WebrtcClient>,
}

/// A client that is a script with what runs it.
#[derive(Clone, Debug)]
pub struct Script {
    runner: PathBuf,
    script: PathBuf,
}

impl Script {
    /// The command, in the script's folder.
    pub fn command(&self) -> Command {
        let mut command = Command::new(&self.runner);
        command.arg(&self.script);
        command
    }
}

/// Whose WebRTC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WebrtcClient {
    /// A browser's.
    Chromium,
    /// Python's.
    Aiortc,
}

impl FromStr for WebrtcClient {
    type Err = String;

    /// As `--client` takes it.
    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "webrtc=chromium" => Ok(Self::Chromium),
            "webrtc=aiortc" => Ok(Self::Aiortc),
            _ => Err("expected webrtc=chromium or webrtc=aiortc".into()),
        }
    }
}

const SETUP: &str = "run scripts/setup.sh test";

impl Tools {
    /// What is there, with the script clients in `folder`.
    pub fn find(folder: &Path, webrtc: Option<WebrtcClient>) -> Self {
        let script = |name: &str| {
            let path = folder.join(name);
            path.canonicalize()
                .map_err(|_| format!("{} is not there; give --clients the folder tests/clients of patchbay's source", path.display()))
        };
        let in_browser = |name: &str, package: &str| {
            let browser = std::env::var_os("CHROMIUM").map_or_else(|| PathBuf::from("/usr/bin/chromium"), PathBuf::from);
            let script = script(name)?;
            let runner = program("node")?;
            need(&browser, "install chromium, or name another in CHROMIUM")?;
            need(&folder.join("node_modules").join(package), SETUP)?;
            Ok(Script { runner, script })
        };
        let aiortc = || {
            let script = script("aiortc_client.py")?;
            let runner = folder.join("../../.venv/bin/python");
            need(&runner, SETUP)?;
            Ok(Script { runner: std::path::absolute(&runner).map_err(|e| e.to_string())?, script })
        };
        let nginx = || {
            let script = script("nginx_rtmp.sh")?;
            // Debian has it where only root looks.
            program("nginx").map(drop).or_else(|missing| need(Path::new("/usr/sbin/nginx"), "").map_err(|_| missing))?;
            need(Path::new("/usr/lib/nginx/modules/ngx_rtmp_module.so"), "install libnginx-mod-rtmp")?;
            Ok(Script { runner: program("bash")?, script })
        };
        Self {
            ffmpeg: program("ffmpeg"),
            chromium: in_browser("browser.mjs", "playwright-core"),
            jsmpeg: in_browser("jsmpeg.mjs", "@cycjimmy/jsmpeg-player"),
            aiortc: aiortc(),
            nginx: nginx(),
            webrtc,
        }
    }

    /// The WebRTC client: the one that is wanted, else the first that is there.
    pub fn webrtc(&self) -> Found<(WebrtcClient, &Script)> {
        let of = |client| {
            let found = if client == WebrtcClient::Chromium { &self.chromium } else { &self.aiortc };
            found.as_ref().map(|script| (client, script)).map_err(Clone::clone)
        };
        match self.webrtc {
            Some(client) => of(client),
            None => of(WebrtcClient::Chromium).or_else(|missing| of(WebrtcClient::Aiortc).map_err(|_| missing)),
        }
    }
}

fn need(path: &Path, remedy: &str) -> Found<()> {
    if path.exists() { Ok(()) } else { Err(format!("{} is not there; {remedy}", path.display())) }
}

/// A program of the search path.
fn program(name: &str) -> Found<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut found = std::env::split_paths(&path).map(|folder| folder.join(name)).filter(|file| file.is_file());
    found.next().ok_or_else(|| format!("{name} is not in PATH; install it"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_is_named_with_a_remedy() {
        let tools = Tools::find(Path::new("/no/such/folder"), Some(WebrtcClient::Aiortc));
        for missing in [tools.jsmpeg.err(), tools.nginx.err(), tools.aiortc.err()] {
            assert!(missing.unwrap().contains("give --clients"), "the remedy");
        }
        assert!(program("no-such-program").unwrap_err().contains("install it"));
    }

    #[test]
    fn a_wanted_client_is_not_replaced_by_another() {
        let script = Script { runner: "a".into(), script: "b".into() };
        let tools = |webrtc| Tools {
            ffmpeg: Err("no".into()),
            chromium: Err("no chromium".into()),
            jsmpeg: Err("no".into()),
            aiortc: Ok(script.clone()),
            nginx: Err("no".into()),
            webrtc,
        };
        assert_eq!(tools(None).webrtc().unwrap().0, WebrtcClient::Aiortc);
        assert_eq!(tools(Some(WebrtcClient::Chromium)).webrtc().unwrap_err(), "no chromium");
        assert!("webrtc=firefox".parse::<WebrtcClient>().is_err());
    }
}
