//! Audio encoders: one file per codec or family, each a line of the registry.

#[cfg(feature = "fdk")]
pub(crate) mod fdk;
#[cfg(not(feature = "fdk"))]
pub(crate) mod ffmpeg_aac;
mod library;
pub(crate) mod mp2;
pub(crate) mod opus;
pub(crate) mod telephone;

use patchbay_media::AudioTarget;

use crate::engine::within;
use crate::error::CodecError;

/// Lowest rate of any encoder here. Checked because fdk-aac divides by the rate it is given.
const SAMPLE_RATE_MIN: u32 = 7_350;

/// Refuses what no encoder here takes.
fn check_target(target: &AudioTarget) -> Result<(), CodecError> {
    within("target channel count", u64::from(target.channels), 2)?;
    within("target sample rate", u64::from(target.sample_rate), 96_000)?;
    if target.sample_rate < SAMPLE_RATE_MIN || target.channels == 0 {
        return Err(CodecError::Target(*target));
    }
    Ok(())
}
