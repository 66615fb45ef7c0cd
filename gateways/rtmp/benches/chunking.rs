//! What RTMP costs here: CPU seconds per gigabyte written and read, and CPU milliseconds per viewer and second.
//!
//! The viewers run in a process of their own, so that only the gateway's side is counted; what its source costs without
//! viewers is subtracted. nginx-rtmp serves the same stream to as many, pushed to it by the gateway, if it is installed. `cargo bench -p patchbay-rtmp -- SECONDS VIEWERS...` changes the 10 s and the 50 and 200.

#[path = "../tests/common/mod.rs"]
mod common;

use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use common::Running;
use common::client::Client;
use common::nginx::Nginx;
use patchbay_bus::{TrackWriter, now};
use patchbay_media::{AudioShape, Codec, Frame, MediaTime, TrackInfo, VideoShape};
use patchbay_outbound::Policy;
use patchbay_rtmp::Config;
use patchbay_rtmp::proto::chunk::{ChunkReader, Limits, encode_message};
use patchbay_rtmp::proto::client::Mode;
use patchbay_rtmp::proto::message::{csid, type_id};
use patchbay_rtmp::push::{Destination, Push, Target};
use patchbay_rules::EndpointKind;
use tokio::io::AsyncReadExt;

/// 720p30 at 2 Mbit/s and its sound: 2.1 Mbit/s in 77 messages a second, as the other servers were measured.
const PICTURE: usize = 2_000_000 / 8 / 30;
const SOUND: usize = 260;
const PICTURES_PER_S: u64 = 30;
const CHUNK_SIZE: u32 = 60_000;

fn main() {
    let args: Vec<String> = std::env::args().skip(1).filter(|a| a != "--bench").collect();
    if let [role, address, count] = &args[..]
        && role == "viewers"
    {
        return view(address.parse().unwrap(), count.parse().unwrap());
    }
    let mut numbers = args.iter().filter_map(|a| a.parse().ok());
    let seconds = numbers.next().unwrap_or(10);
    let mut counts: Vec<usize> = numbers.map(|n| n as usize).collect();
    if counts.is_empty() {
        counts = vec![50, 200];
    }
    println!("chunking                         CPU-s/GB   (floor 0.2: one copy with its headers)");
    println!("  write, messages of {PICTURE} B       {:8.3}", write_cost());
    println!("  read, in pieces of 64 KiB      {:8.3}", read_cost());
    println!("viewers of 2.1 Mbit/s over RTMP  ms CPU per viewer-s  (floor 0.13-0.17 at 20 ms coalescing; nginx-rtmp 0.44-0.68)");
    for count in counts {
        fan_out(count, Duration::from_secs(seconds));
    }
}

/// CPU time of this process so far, user and system.
fn cpu() -> Duration {
    // SAFETY: rusage is plain data for which zeros are valid, and the call only writes to it.
    let usage = unsafe {
        let mut usage: libc::rusage = std::mem::zeroed();
        libc::getrusage(libc::RUSAGE_SELF, &mut usage);
        usage
    };
    let time = |t: libc::timeval| Duration::from_secs(t.tv_sec as u64) + Duration::from_micros(t.tv_usec as u64);
    time(usage.ru_utime) + time(usage.ru_stime)
}

fn per_gigabyte(bytes: usize, mut work: impl FnMut()) -> f64 {
    let (begun, mut done) = (cpu(), 0);
    let until = Instant::now() + Duration::from_secs(1);
    while Instant::now() < until {
        work();
        done += bytes;
    }
    (cpu() - begun).as_secs_f64() / (done as f64 / 1e9)
}

fn write_cost() -> f64 {
    let payload = vec![0x55; PICTURE];
    let mut out = BytesMut::with_capacity(1 << 20);
    per_gigabyte(PICTURE * 64, || {
        out.clear();
        (0..64).for_each(|i| encode_message(&mut out, csid::VIDEO, i * 33, type_id::VIDEO, 1, &payload, CHUNK_SIZE));
        std::hint::black_box(&out);
    })
}

fn read_cost() -> f64 {
    let payload = vec![0x55; PICTURE];
    let mut wire = BytesMut::new();
    (0..256).for_each(|i| encode_message(&mut wire, csid::VIDEO, i * 33, type_id::VIDEO, 1, &payload, 128.max(CHUNK_SIZE)));
    let wire = wire.freeze();
    per_gigabyte(wire.len(), || {
        let mut reader = ChunkReader::new(Limits::ACCEPTED);
        let mut set = BytesMut::new();
        encode_message(&mut set, csid::CONTROL, 0, type_id::SET_CHUNK_SIZE, 0, &CHUNK_SIZE.to_be_bytes(), 128);
        reader.push(set.freeze());
        for at in (0..wire.len()).step_by(64 << 10) {
            reader.push(wire.slice(at..wire.len().min(at + (64 << 10))));
            while let Some(message) = reader.next().unwrap() {
                std::hint::black_box(message);
            }
        }
    })
}

fn fan_out(count: usize, span: Duration) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let gateway = Running::start(Config::default(), None).await;
        let publisher = gateway.hub.bus.publish("live/bench".parse().unwrap()).unwrap();
        let shape = VideoShape { width: 1280, height: 720, ..VideoShape::default() };
        let video = publisher.add_track(TrackInfo::video(Codec::H264, Bytes::from_static(&[1; 40]), shape));
        let shape = AudioShape { sample_rate: 48_000, channels: 2 };
        let audio = publisher.add_track(TrackInfo::audio(Codec::Aac, Bytes::from_static(&[0x11, 0x90]), shape));
        let source = tokio::spawn(feed(video, audio));
        let alone = measure(span / 2).await;
        let memory = resident();
        let mut viewers = Viewers::start(gateway.rtmp, count);
        let limit = Instant::now() + Duration::from_secs(20);
        while gateway.hub.viewers().len() < count {
            assert!(Instant::now() < limit, "only {} of {count} viewers came", gateway.hub.viewers().len());
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
        let sent = || -> u64 { gateway.hub.viewers().iter().map(|c| c.bytes.load(std::sync::atomic::Ordering::Relaxed)).sum() };
        let before = sent();
        let busy = measure(span).await;
        let rate = (sent() - before) as f64 * 8.0 / span.as_secs_f64() / count as f64 / 1e6;
        let counters = gateway.hub.viewers();
        let delay: i64 = counters.iter().map(|c| c.delay_ns()).sum::<i64>() / count as i64;
        let skipped: u64 = counters.iter().map(|c| c.skipped.load(std::sync::atomic::Ordering::Relaxed)).sum();
        println!(
            "  {count:4} viewers                   {:8.3}   ({rate:.2} Mbit/s each, {:.2} ms inside, {:.1} kB each, {skipped} skipped; source alone {:.2} ms/s)",
            (busy - alone) * 1e3 / count as f64,
            delay as f64 / 1e6,
            (resident().saturating_sub(memory)) as f64 / 1e3 / count as f64,
            alone * 1e3,
        );
        viewers.stop();
        if Path::new("/usr/sbin/nginx").exists() {
            nginx(&gateway, count, span).await;
        }
        source.abort();
    });
}

/// The same from nginx.
async fn nginx(gateway: &Running, count: usize, span: Duration) {
    let nginx = Nginx::start(&format!("bench-{count}")).await;
    let target = Target::parse(&nginx.url("live/bench")).unwrap();
    let _push = Push::start(gateway.hub.clone(), "live/bench".parse().unwrap(), EndpointKind::Cdn, Destination::new(target, Policy::ALL));
    tokio::time::sleep(Duration::from_secs(2)).await;
    let (begun, at) = (nginx.cpu(), Instant::now());
    tokio::time::sleep(span / 2).await;
    let alone = (nginx.cpu() - begun).as_secs_f64() / at.elapsed().as_secs_f64();
    let mut viewers = Viewers::start(nginx.address, count);
    tokio::time::sleep(Duration::from_secs(3)).await;
    let (begun, at) = (nginx.cpu(), Instant::now());
    tokio::time::sleep(span).await;
    let busy = (nginx.cpu() - begun).as_secs_f64() / at.elapsed().as_secs_f64();
    println!("    nginx-rtmp, the same         {:8.3}   (source alone {:.2} ms/s)", (busy - alone) * 1e3 / count as f64, alone * 1e3);
    viewers.stop();
}

/// CPU seconds per second of this process.
async fn measure(span: Duration) -> f64 {
    let (begun, at) = (cpu(), Instant::now());
    tokio::time::sleep(span).await;
    (cpu() - begun).as_secs_f64() / at.elapsed().as_secs_f64()
}

/// Resident memory of this process, bytes.
fn resident() -> u64 {
    let pages = std::fs::read_to_string("/proc/self/statm").unwrap().split(' ').nth(1).unwrap().parse::<u64>().unwrap();
    pages * 4096
}

async fn feed(mut video: TrackWriter, mut audio: TrackWriter) {
    let (picture, sound) = (Bytes::from(vec![0x55; PICTURE]), Bytes::from(vec![0x55; SOUND]));
    let frame = |key, payload: &Bytes| {
        let time = now();
        Frame { pts: time, dts: time, duration: MediaTime::ZERO, key, loss: 0, arrival: time, payload: payload.clone() }
    };
    let mut pictures = tokio::time::interval(Duration::from_nanos(1_000_000_000 / PICTURES_PER_S));
    let mut sounds = tokio::time::interval(Duration::from_micros(21_333));
    let mut count = 0u64;
    loop {
        tokio::select! {
            _ = pictures.tick() => {
                video.push(frame(count.is_multiple_of(PICTURES_PER_S), &picture));
                count += 1;
            }
            _ = sounds.tick() => audio.push(frame(true, &sound)),
        }
    }
}

struct Viewers(Child);

impl Viewers {
    fn start(address: SocketAddr, count: usize) -> Self {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["viewers", &address.to_string(), &count.to_string()]).stdin(Stdio::null());
        Self(command.spawn().unwrap())
    }

    fn stop(&mut self) {
        _ = self.0.kill();
        _ = self.0.wait();
    }
}

/// The other process: plays and throws away.
fn view(address: SocketAddr, count: usize) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let mut tasks = tokio::task::JoinSet::new();
        for _ in 0..count {
            tasks.spawn(async move {
                let mut client = Client::started(address, "live/bench", Mode::Play).await.unwrap();
                let mut scratch = vec![0; 64 << 10];
                while client.stream.read(&mut scratch).await.is_ok_and(|n| n > 0) {}
            });
        }
        while tasks.join_next().await.is_some() {}
    });
}
