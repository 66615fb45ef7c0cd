//! [`Engine`]: what can be transcoded, and the start of a rendition.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use patchbay_bus::{Lag, Limits, Signal, Start, Track};
use patchbay_media::{Codec, Kind, MediaTime, Target};

use crate::audio::pipeline::AudioStage;
use crate::error::CodecError;
use crate::pool::{Actor, Pool};
use crate::registry;
use crate::rendition::{Rendition, Worker};
use crate::stats::Stats;
use crate::video::pipeline::{EncodeStage, EncodeWorker};
use crate::video::share::Decoders;
use crate::{ff, limits};

/// How far a pipeline may be behind its source before it skips to the newest group.
pub(crate) const LAG_MAX: Duration = Duration::from_secs(1);

/// How the engine is set up.
#[derive(Clone, Copy, Debug)]
pub struct EngineConfig {
    /// Codec threads; 0 means one per core.
    pub threads: usize,
    /// Nice value of the codec threads, 0 to 19: how far they stand back for others.
    pub nice: u8,
    /// How long a live audio source may be quiet before silence goes out in its place. Doubles, up to a second,
    /// for a source that turns out to deliver in bursts.
    pub silence_after: Duration,
}

impl Default for EngineConfig {
    /// One thread per core at the usual priority, silence after 100 ms.
    fn default() -> Self {
        Self { threads: 0, nice: 0, silence_after: Duration::from_millis(100) }
    }
}

/// Why a rendition cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The source has no description yet.
    #[error("the source track is not described yet")]
    NotDescribed,
    /// The source's codec has no decoder here.
    #[error("no decoder for {0}")]
    NoDecoder(Codec),
    /// The target's codec has no encoder here.
    #[error("no encoder for {0}")]
    NoEncoder(Codec),
    /// Sound cannot become pictures.
    #[error("a {from} track cannot become {to}")]
    Kind {
        /// Kind of the source.
        from: Kind,
        /// Kind of the target.
        to: Kind,
    },
    /// The source or target is out of range, or the encoder does not open.
    #[error(transparent)]
    Codec(#[from] CodecError),
}

/// Decoders, encoders and their threads.
pub struct Engine {
    pool: Arc<Pool>,
    decoders: Decoders,
    silence_after: MediaTime,
}

impl Engine {
    /// Starts the threads.
    ///
    /// # Panics
    /// When the system refuses to start a thread; nothing works then.
    pub fn new(config: EngineConfig) -> Arc<Self> {
        ff::init();
        let cores = std::thread::available_parallelism().map_or(2, |n| n.get());
        let threads = if config.threads == 0 { cores } else { config.threads };
        let pool = match Pool::start(threads, config.nice) {
            Ok(pool) => pool,
            Err(e) => panic!("cannot start {threads} codec threads: {e}"),
        };
        Arc::new(Self { pool: Arc::new(pool), decoders: Decoders::default(), silence_after: config.silence_after.into() })
    }

    /// Codecs that can be decoded, and codecs that can be encoded.
    pub fn abilities(&self) -> (BTreeSet<Codec>, BTreeSet<Codec>) {
        registry::abilities()
    }

    /// Starts to turn `source` into `target`. The codecs run on the engine's threads; dropping the rendition
    /// stops them.
    ///
    /// # Errors
    /// See [`StartError`].
    pub fn start(&self, source: &Arc<Track>, target: &Target) -> Result<Rendition, StartError> {
        let (info, _) = source.info().ok_or(StartError::NotDescribed)?;
        if info.kind() != target.kind() {
            return Err(StartError::Kind { from: info.kind(), to: target.kind() });
        }
        let (decodable, encodable) = registry::abilities();
        if !decodable.contains(&info.codec) {
            return Err(StartError::NoDecoder(info.codec));
        }
        if !encodable.contains(&target.codec()) {
            return Err(StartError::NoEncoder(target.codec()));
        }
        let signal = Arc::new(Signal::new());
        let stats = Arc::new(Stats::default());
        let (worker, track, seat): (Box<dyn Actor>, _, _) = match target {
            Target::Audio(audio) => {
                let (stage, info) = AudioStage::new(*audio, self.silence_after)?;
                let writer = Track::create(target.kind(), Some(info), Limits::default());
                let track = writer.track().clone();
                let reader = source.read(Start::Newest, Lag::Skip(LAG_MAX), signal.clone());
                (Box::new(Worker::new(reader, writer, Box::new(stage), stats.clone())), track, None)
            }
            Target::Video(video) => {
                let stage = EncodeStage::new(*video)?;
                // A video encoder is opened with the first picture: only that tells its size.
                let writer = Track::create(target.kind(), None, Limits::default());
                let track = writer.track().clone();
                let seat = self.decoders.join(source, stats.clone(), signal.clone(), &self.pool);
                let worker = EncodeWorker::new(seat.queue(), source.clone(), writer, stage, stats.clone());
                (Box::new(worker), track, Some(seat))
            }
        };
        let task = self.pool.spawn(worker, signal);
        Ok(Rendition::new(track, stats, task, seat, self.pool.clone()))
    }
}

/// Refuses a value above its limit.
pub(crate) fn within(what: &'static str, value: u64, max: u64) -> Result<(), CodecError> {
    if value > max { Err(CodecError::Limit { what, value, max }) } else { Ok(()) }
}

/// Refuses sound that is out of range.
pub(crate) fn check_audio(sample_rate: u32, channels: u8) -> Result<(), CodecError> {
    within("sample rate", u64::from(sample_rate), u64::from(limits::SAMPLE_RATE_MAX))?;
    within("channel count", u64::from(channels), u64::from(limits::CHANNELS_MAX))
}
