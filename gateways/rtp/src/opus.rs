//! Opus packets as RTP payloads need nothing (RFC 7587 §4.2); their length in time is read here.

use patchbay_media::MediaTime;

/// How long a packet lasts (RFC 6716 §3.1 and §3.2.5); `None` when it is malformed.
pub fn duration(packet: &[u8]) -> Option<MediaTime> {
    let toc = *packet.first()?;
    let frame_us = match toc >> 3 {
        config @ 0..12 => [10_000, 20_000, 40_000, 60_000][usize::from(config & 3)],
        config @ 12..16 => [10_000, 20_000][usize::from(config & 1)],
        config => [2_500, 5_000, 10_000, 20_000][usize::from(config & 3)],
    };
    let count = match toc & 3 {
        0 => 1,
        1 | 2 => 2,
        _ => i64::from(packet.get(1)? & 0x3f),
    };
    let total = frame_us * count;
    (count > 0 && total <= 120_000).then(|| MediaTime::from_micros(total))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_follow_the_table() {
        for (packet, ms) in [(&[0x78u8][..], 20), (&[0xfc], 20), (&[0x08, 1], 20), (&[0x09, 1], 40), (&[0xff, 6], 120)] {
            assert_eq!(duration(packet), Some(MediaTime::from_millis(ms)), "{packet:02x?}");
        }
        for lie in [&[][..], &[0xff], &[0xff, 0], &[0xff, 63]] {
            assert_eq!(duration(lie), None, "{lie:02x?}");
        }
    }
}
