//! Renditions by source track and exact target: whoever asks for the same bits gets the same encoder.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use patchbay_bus::{Track, TrackUid};
use patchbay_media::Target;
use patchbay_transcode::{Engine, Rendition, StartError};

/// One running encoder. It stops when the last pair that holds it lets go.
pub struct Handle {
    /// `<source track>>target`, unique among live renditions.
    pub id: String,
    /// What it makes.
    pub target: Target,
    /// The track it is made from.
    pub source: TrackUid,
    rendition: Rendition,
}

impl Handle {
    /// The derived track.
    pub fn track(&self) -> &Arc<Track> {
        self.rendition.track()
    }

    /// Figures of the engine.
    pub fn rendition(&self) -> &Rendition {
        &self.rendition
    }
}

/// Why no rendition was started.
#[derive(Debug, thiserror::Error)]
pub enum Refused {
    /// The configured number runs already.
    #[error("the limit of {0} transcodes (transcode.jobs_max) is reached")]
    TooMany(usize),
    /// The engine cannot do it.
    #[error(transparent)]
    Engine(#[from] StartError),
}

/// All live renditions.
pub struct Renditions {
    engine: Arc<Engine>,
    limit: usize,
    live: Mutex<HashMap<(TrackUid, Target), Weak<Handle>>>,
}

impl Renditions {
    pub fn new(engine: Arc<Engine>, limit: usize) -> Self {
        Self { engine, limit, live: Mutex::default() }
    }

    /// The rendition of `source` as `target`, started if nobody has it yet.
    ///
    /// # Errors
    /// When too many run already, or the engine cannot start it.
    pub fn get_or_start(&self, source: &Arc<Track>, target: Target) -> Result<Arc<Handle>, Refused> {
        let mut live = self.live.lock().unwrap_or_else(PoisonError::into_inner);
        live.retain(|_, handle| handle.strong_count() > 0);
        let key = (source.uid(), target);
        if let Some(handle) = live.get(&key).and_then(Weak::upgrade)
            && handle.track().ended().is_none()
        {
            return Ok(handle);
        }
        if live.len() >= self.limit {
            return Err(Refused::TooMany(self.limit));
        }
        let rendition = self.engine.start(source, &target)?;
        let id = format!("{}>{target}", source.uid());
        tracing::info!(rendition = %id, "rendition starts");
        let handle = Arc::new(Handle { id, target, source: source.uid(), rendition });
        live.insert(key, Arc::downgrade(&handle));
        Ok(handle)
    }

    /// All live renditions, with how many pairs hold each.
    pub fn list(&self) -> Vec<(Arc<Handle>, usize)> {
        let live = self.live.lock().unwrap_or_else(PoisonError::into_inner);
        let mut all: Vec<_> =
            live.values().filter_map(Weak::upgrade).map(|h| (Arc::strong_count(&h) - 1, h)).map(|(n, h)| (h, n)).collect();
        all.sort_by(|a, b| a.0.id.cmp(&b.0.id));
        all
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        tracing::info!(rendition = %self.id, "rendition stops");
    }
}
