//! FFmpeg as a player: reads the stamps of the pictures it shows and the loudness of its sound, and tells the codecs.
//!
//! Refuses: to know where its URL comes from.

use std::io::Read;
use std::process::Command;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use super::process::Process;
use super::stamp::{self, Counts, ROW, Stamps};
use super::{Bench, FIRST_PICTURE_MAX, FPS, Fault, Observed, SETTLE};

/// Sound is listened to at this rate: enough for a beep.
const SOUND_RATE: usize = 8_000;
/// How often it is asked whether all is to stop.
const LOOK: Duration = Duration::from_millis(100);

/// Plays `url` for the bench's seconds, calling itself `agent`.
///
/// # Errors
/// When FFmpeg is missing or cannot be started.
pub fn play(bench: &Bench, url: &str, agent: &str, counts: Counts) -> Result<Observed, Fault> {
    let sound = bench.space.file("sound");
    let mut command = Command::new(bench.tools.ffmpeg.as_ref().map_err(Fault::missing)?);
    command.args(["-nostdin", "-hide_banner", "-nostats", "-rw_timeout", "15000000", "-fflags", "nobuffer", "-flags", "low_delay"]);
    command.args(["-probesize", "200000", "-analyzeduration", "1000000"]);
    command.args([if url.starts_with("rtmp:") { "-rtmp_flashver" } else { "-user_agent" }, agent, "-i", url]);
    command.args(["-map", "0:v:0", "-vf", &stamp::row_filter(), "-fps_mode", "passthrough", "-f", "rawvideo", "pipe:1"]);
    command.args(["-map", "0:a:0", "-ac", "1", "-ar", &SOUND_RATE.to_string(), "-flush_packets", "1", "-f", "s16le"]).arg(&sound);
    let (process, pipe) = Process::piped(&mut command, &bench.space).map_err(Fault::Failed)?;
    let mut seen = watch(bench, &rows(pipe));
    // The codecs stand in what it said; it is ended so that the sound is all written.
    let said = process.complaints();
    let last_words = process.last_words(&bench.space);
    drop(process);
    let samples: Vec<i16> = std::fs::read(&sound).unwrap_or_default().chunks_exact(2).map(|b| i16::from_le_bytes([b[0], b[1]])).collect();
    seen.stamps = Stamps::of(&seen.values, counts, f64::from(FPS));
    Ok(Observed {
        client: "FFmpeg".into(),
        video: codec_of(&said, "Video"),
        audio: codec_of(&said, "Audio"),
        pictures: seen.pictures,
        stamps: seen.stamps,
        unread: 0,
        listened_s: seen.seconds,
        sound_s: samples.len() as f64 / SOUND_RATE as f64,
        loudness: rms(&samples),
        complaint: (seen.pictures == 0).then_some(last_words).filter(|words| !words.is_empty()),
    })
}

#[derive(Default)]
struct Seen {
    pictures: u64,
    values: Vec<u32>,
    stamps: Stamps,
    seconds: f64,
}

/// Pictures' rows as they come; the thread ends with the pipe.
fn rows(mut pipe: impl Read + Send + 'static) -> Receiver<[u8; ROW]> {
    let (sender, receiver) = mpsc::channel();
    std::thread::spawn(move || {
        let mut row = [0; ROW];
        while pipe.read_exact(&mut row).is_ok() && sender.send(row).is_ok() {}
    });
    receiver
}

/// Looks at pictures until the time is over. The first seconds are not judged: a player that joins late may be given the
/// group so far, and hurry through it.
fn watch(bench: &Bench, rows: &Receiver<[u8; ROW]>) -> Seen {
    let (mut seen, begin) = (Seen::default(), Instant::now());
    let mut first = None;
    loop {
        let now = Instant::now();
        let until = first.map_or(begin + FIRST_PICTURE_MAX, |first| first + SETTLE + bench.seconds);
        if now >= until || bench.stop.is_cancelled() {
            break;
        }
        match rows.recv_timeout((until - now).min(LOOK)) {
            Ok(row) => {
                let first = *first.get_or_insert_with(Instant::now);
                seen.pictures += 1;
                seen.values.extend(stamp::read(&row).filter(|_| first.elapsed() >= SETTLE));
            }
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => break,
        }
    }
    seen.seconds = first.map_or(0.0, |first| first.elapsed().as_secs_f64());
    seen
}

/// The codec of the input's first track of a kind, by FFmpeg's words: `Stream #0:1: Audio: aac (LC), 44100 Hz, …`.
fn codec_of(said: &str, kind: &str) -> Option<String> {
    let input = said.lines().skip_while(|line| !line.starts_with("Input #0")).take_while(|line| !line.starts_with("Stream mapping"));
    let words = input.filter_map(|line| line.split_once(&format!(" {kind}: "))).map(|(_, rest)| rest);
    let name = words.map(|rest| rest.split([' ', ',']).next().unwrap_or_default()).next()?;
    let ours = match name {
        "mpeg1video" => "mpeg1",
        "mpeg2video" => "mpeg2",
        "hevc" => "h265",
        other => other,
    };
    Some(ours.to_owned())
}

/// Loudness from 0 to 1.
fn rms(samples: &[i16]) -> f64 {
    let energy: f64 = samples.iter().map(|s| (f64::from(*s) / 32_768.0).powi(2)).sum();
    (energy / samples.len().max(1) as f64).sqrt()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_codecs_of_the_input_are_told_from_those_of_the_output() {
        let said = "Input #0, flv, from 'rtmp://h/a':\n  Stream #0:0: Audio: aac (LC), 44100 Hz, stereo\n  Stream #0:1: Video: mpeg1video, yuv420p\n\
                    Stream mapping:\n  Stream #0:1 -> #0:0\nOutput #0, rawvideo\n  Stream #0:0: Video: rawvideo (Y800), gray\n";
        assert_eq!((codec_of(said, "Video").as_deref(), codec_of(said, "Audio").as_deref()), (Some("mpeg1"), Some("aac")));
        assert_eq!(codec_of("rtmp://h/a: Input/output error", "Video"), None);
    }

    #[test]
    fn silence_is_told_from_a_beep() {
        assert_eq!((rms(&[]), rms(&[0; 100])), (0.0, 0.0));
        assert!((rms(&[16_384, -16_384]) - 0.5).abs() < 1e-9);
    }
}
