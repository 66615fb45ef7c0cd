//! The sources: a stamped picture with beeps, published the way clients of each kind publish.
//!
//! Every source ends by itself some time after its row must be over. Refuses: to look at what becomes of it.

use std::process::Command;

use patchbay_rules::EndpointKind;

use super::process::Process;
use super::stamp::{Counts, picture_filter};
use super::tools::WebrtcClient;
use super::{Bench, FPS, Fault, HEIGHT, WIDTH};

/// After this long a source ends by itself, seconds.
const LIFE_MAX: &str = "240";
/// Beeps: the first 100 ms of each second.
const BEEPS: &str = "aevalsrc='if(lt(mod(t,1),0.1),0.7*sin(2*PI*1000*t),0)':s=44100:c=mono";
const H264: &str = "-c:v libx264 -preset ultrafast -tune zerolatency -profile:v baseline -bf 0 -b:v 800k -maxrate 800k -bufsize 800k";
const AAC: &str = "-c:a aac -b:a 96k -ar 44100 -ac 2";
const MPEG1: &str = "-c:v mpeg1video -bf 0 -b:v 1500k -maxrate 2000k -bufsize 1000k";
const MP2: &str = "-c:a mp2 -b:a 128k -ar 44100 -ac 2 -muxdelay 0.001";

/// A source that publishes until it is dropped.
pub struct Source {
    /// Name of its stream.
    pub stream: String,
    /// What its stamps count.
    pub counts: Counts,
    /// Who publishes, for people.
    pub client: String,
    process: Process,
}

impl Source {
    /// Starts the source of one kind.
    ///
    /// # Errors
    /// When its client is missing or cannot be started.
    pub fn start(kind: EndpointKind, bench: &Bench) -> Result<Self, Fault> {
        let stream = bench.stream(kind);
        let ffmpeg = |codecs: [&str; 2], format: &str, url: &str| -> Result<Process, Fault> {
            let program = bench.tools.ffmpeg.as_ref().map_err(Fault::missing)?;
            let mut command = Command::new(program);
            picture_and_beeps(&mut command).args(codecs.iter().flat_map(|codec| codec.split(' ')));
            Process::start(command.args(["-t", LIFE_MAX, "-f", format, url]), &bench.space).map_err(Fault::Failed)
        };
        let direct = |kind| bench.deployment.rtmp_url(&stream, kind);
        let (client, process) = match kind {
            EndpointKind::Webrtc => return Self::webrtc(stream, bench),
            EndpointKind::H5 => ("FFmpeg", ffmpeg([MPEG1, MP2], "mpegts", bench.deployment.url(&format!("/h5/{stream}"), &[]).as_str())?),
            EndpointKind::Cdn => match bench.origin.as_ref().ok().and_then(|origin| origin.relay.as_ref()) {
                // The relay's own URL says kind and key.
                Some(relay) => ("FFmpeg through nginx-rtmp", ffmpeg([H264, AAC], "flv", &format!("{relay}/{}", bench.name(kind)))?),
                None => ("FFmpeg", ffmpeg([H264, AAC], "flv", &direct(kind))?),
            },
            _ => ("FFmpeg", ffmpeg([H264, AAC], "flv", &direct(kind))?),
        };
        Ok(Self { stream, counts: Counts::Pictures, client: client.into(), process })
    }

    fn webrtc(stream: String, bench: &Bench) -> Result<Self, Fault> {
        let (client, script) = bench.tools.webrtc().map_err(Fault::Missing)?;
        let url = bench.deployment.url(&format!("/whip/{stream}"), &[]);
        let mut command = script.command();
        let client = match client {
            WebrtcClient::Chromium => {
                command.args(["--canvas", "--min-kbps", "500", "--max-kbps", "1000", "--whip"]);
                "Chromium"
            }
            WebrtcClient::Aiortc => {
                command.arg("whip");
                "aiortc"
            }
        };
        let (width, height, fps) = (WIDTH.to_string(), HEIGHT.to_string(), FPS.to_string());
        command.args([url.as_str(), "--seconds", LIFE_MAX, "--width", &width, "--height", &height, "--fps", &fps]);
        if let Some(key) = bench.deployment.key() {
            command.args(["--token", key]);
        }
        let process = Process::start(&mut command, &bench.space).map_err(Fault::Failed)?;
        Ok(Self { stream, counts: Counts::Milliseconds, client: client.into(), process })
    }

    pub fn is_running(&mut self) -> bool {
        self.process.is_running()
    }

    /// Why it ended, in its own words.
    pub fn last_words(&self, bench: &Bench) -> String {
        self.process.last_words(&bench.space)
    }
}

/// FFmpeg's input and filters; both inputs are paced, and start together.
fn picture_and_beeps(command: &mut Command) -> &mut Command {
    let picture = format!("testsrc2=s={WIDTH}x{HEIGHT}:r={FPS}");
    command.args(["-nostdin", "-hide_banner", "-v", "error", "-re", "-f", "lavfi", "-i", &picture, "-re", "-f", "lavfi", "-i", BEEPS]);
    command.args(["-vf", &picture_filter(), "-pix_fmt", "yuv420p", "-g", &FPS.to_string()])
}
