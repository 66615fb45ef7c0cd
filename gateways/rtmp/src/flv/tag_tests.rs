//! Tag bodies: both forms, both ways, and the bad ones.

use super::*;

fn video(bytes: &[u8]) -> Result<Option<VideoTag>, TagError> {
    VideoTag::parse(Bytes::copy_from_slice(bytes))
}

fn audio(bytes: &[u8]) -> Result<Option<AudioTag>, TagError> {
    AudioTag::parse(Bytes::copy_from_slice(bytes))
}

const DATA: Bytes = Bytes::from_static(b"data");

#[test]
fn legacy_avc_with_negative_composition_time() {
    let tag = video(&[0x27, 1, 0xFF, 0xFF, 0xD8, 9]).unwrap().unwrap();
    let data = Bytes::from_static(&[9]);
    let packet = VideoPacket::Frame { composition_ms: -40, data };
    assert_eq!(tag, VideoTag { codec: VideoCodec::Avc, keyframe: false, packet });
}

#[test]
fn video_tags_survive_the_wire() {
    use VideoCodec::*;
    for codec in [Avc, Hevc, Av1, Vp8, Vp9] {
        let cts: &[i32] = if codec.has_composition_time() { &[0, -40, 8_388_607] } else { &[0] };
        let frames = cts.iter().map(|ms| VideoPacket::Frame { composition_ms: *ms, data: DATA });
        let others = [VideoPacket::SequenceStart(DATA), VideoPacket::SequenceEnd, VideoPacket::Metadata(DATA)];
        for packet in frames.chain(others) {
            let tag = VideoTag { codec, keyframe: true, packet };
            let mut out = BytesMut::new();
            tag.encode(&mut out);
            assert_eq!(VideoTag::parse(out.freeze()), Ok(Some(tag)));
        }
    }
}

#[test]
fn audio_tags_survive_the_wire() {
    use AudioCodec::*;
    for codec in [Aac, Mp3, G711A, G711U, Opus, Flac, Ac3, Eac3] {
        let sound = match codec {
            G711A | G711U => SoundFormat { rate_hz: 8000, wide: true, stereo: false },
            _ => SoundFormat::AAC,
        };
        let mut packets = vec![AudioPacket::Frame(DATA)];
        if codec.fourcc().is_some() {
            packets.push(AudioPacket::SequenceStart(DATA));
            packets.push(AudioPacket::SequenceEnd);
            packets.push(AudioPacket::ChannelConfig(DATA));
        }
        for packet in packets {
            let tag = AudioTag { codec, sound, packet };
            let mut out = BytesMut::new();
            tag.encode(&mut out);
            assert_eq!(AudioTag::parse(out.freeze()), Ok(Some(tag)));
        }
    }
}

#[test]
fn mod_ex_prefixes_are_skipped_up_to_a_limit() {
    let chain = |n: usize| {
        let mut bytes = vec![0x97];
        for i in 0..n {
            let next = if i + 1 == n { CODED_FRAMES_X } else { MOD_EX };
            bytes.extend_from_slice(&[2, 1, 2, 3, next]);
        }
        bytes.extend_from_slice(b"av01x");
        bytes
    };
    let tag = video(&chain(MAX_MOD_EX)).unwrap().unwrap();
    assert_eq!(tag.codec, VideoCodec::Av1);
    assert_eq!(video(&chain(MAX_MOD_EX + 1)), Err(TagError::TooManyModEx));
    let mut long = vec![0x97, 255, 1, 0];
    long.extend_from_slice(&[0; 257]);
    long.extend_from_slice(b"\x03vp09x");
    assert_eq!(video(&long).unwrap().unwrap().codec, VideoCodec::Vp9);
}

#[test]
fn of_several_tracks_the_default_one_is_read() {
    let frame = |codec| Ok(Some(VideoTag { codec, keyframe: true, packet: VideoPacket::Frame { composition_ms: 0, data: DATA } }));
    assert_eq!(video(b"\x96\x03hvc1\0data"), frame(VideoCodec::Hevc), "one track");
    assert_eq!(video(b"\x96\x13hvc1\x01\0\0\x02xx\0\0\0\x04data\x02\0\0\x01x"), frame(VideoCodec::Hevc), "many of one codec");
    assert_eq!(video(b"\x96\x23hvc1\x01\0\0\x02xxav01\0\0\0\x04data"), frame(VideoCodec::Av1), "each of its own codec");
    let sound = audio(b"\x95\x01Opus\0data").unwrap().unwrap();
    assert_eq!((sound.codec, sound.packet), (AudioCodec::Opus, AudioPacket::Frame(DATA)));
}

#[test]
fn bad_video_is_named() {
    for (bytes, error) in [
        (&[0x17][..], TagError::Truncated),
        (&[0x17, 1, 0, 0], TagError::Truncated),
        (&[0x12, 0], TagError::UnsupportedCodec(2)),
        (&[0x17, 9, 0, 0, 0], TagError::PacketType(9)),
        (b"\x90xyz1", TagError::UnsupportedFourCc(*b"xyz1")),
        (b"\x90avc", TagError::Truncated),
        (b"\x91avc1\0", TagError::Truncated),
        (b"\x96\x01avc1", TagError::Truncated),
        (b"\x96\x01avc1\x01rest", TagError::OtherTrack(1)),
        (b"\x96\x11avc1\x01\0\0\x09rest", TagError::Truncated),
        (b"\x96\x31avc1\0", TagError::PacketType(0x31)),
        (b"\x96\x06avc1\0", TagError::PacketType(6)),
        (b"\x9Favc1", TagError::PacketType(15)),
        (&[0x97, 200, 1], TagError::Truncated),
        (&[0x97, 255, 255], TagError::Truncated),
    ] {
        assert_eq!(video(bytes), Err(error), "{bytes:?}");
    }
}

#[test]
fn bad_audio_is_named() {
    for (bytes, error) in [
        (&[0xAF][..], TagError::Truncated),
        (&[0xAF, 7], TagError::PacketType(7)),
        (&[0x5F, 7], TagError::UnsupportedCodec(5)),
        (b"\x90abcd", TagError::UnsupportedFourCc(*b"abcd")),
        (b"\x95\0Opus", TagError::Truncated),
        (b"\x95\x01Opus\x07rest", TagError::OtherTrack(7)),
        (b"\x91Op", TagError::Truncated),
        (&[0x97, 9], TagError::Truncated),
    ] {
        assert_eq!(audio(bytes), Err(error), "{bytes:?}");
    }
}

#[test]
fn bodies_without_media_give_none() {
    assert_eq!(video(&[]), Ok(None));
    assert_eq!(video(&[0x57, 0]), Ok(None));
    assert_eq!(video(&[0xD1, 0]), Ok(None));
    assert_eq!(audio(&[]), Ok(None));
}

#[test]
fn error_names_the_fourcc_in_letters() {
    let text = TagError::UnsupportedFourCc(*b"vvc1").to_string();
    assert_eq!(text, "codec \"vvc1\" is not supported");
}
