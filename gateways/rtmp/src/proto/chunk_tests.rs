//! The chunk reader against hand-written chunks and against the writer.

use super::*;
use proptest::prelude::*;

fn all(reader: &mut ChunkReader, bytes: &[u8]) -> Result<Vec<Message>, ChunkError> {
    reader.push(Bytes::copy_from_slice(bytes));
    let mut messages = Vec::new();
    while let Some(message) = reader.next()? {
        messages.push(message);
    }
    Ok(messages)
}

fn read(bytes: &[u8]) -> Result<Vec<Message>, ChunkError> {
    all(&mut ChunkReader::new(Limits::STRANGER), bytes)
}

/// A type-0 header on one of the short chunk stream ids.
fn header0(csid: u8, timestamp: u32, len: u32, type_id: u8) -> Vec<u8> {
    let (ts, len) = (timestamp.to_be_bytes(), len.to_be_bytes());
    vec![csid, ts[1], ts[2], ts[3], len[1], len[2], len[3], type_id, 1, 0, 0, 0]
}

fn control(type_id: u8, value: u32) -> Vec<u8> {
    [header0(2, 0, 4, type_id), value.to_be_bytes().to_vec()].concat()
}

fn timestamps(bytes: &[u8]) -> Vec<u32> {
    read(bytes).unwrap().iter().map(|m| m.timestamp).collect()
}

#[test]
fn audio_interleaved_inside_a_video_message_comes_out_first() {
    let mut bytes = header0(6, 10, 200, 9);
    bytes.extend_from_slice(&[1; 128]);
    bytes.extend_from_slice(&header0(4, 11, 3, 8));
    bytes.extend_from_slice(&[2; 3]);
    bytes.push(0xC6);
    bytes.extend_from_slice(&[1; 72]);
    let messages = read(&bytes).unwrap();
    let seen: Vec<_> = messages.iter().map(|m| (m.type_id, m.timestamp, m.payload.len())).collect();
    assert_eq!(seen, [(8, 11, 3), (9, 10, 200)]);
}

#[test]
fn compressed_headers_add_their_deltas() {
    let mut bytes = header0(4, 1000, 1, 8);
    bytes.push(7);
    bytes.extend_from_slice(&[0x44, 0, 0, 20, 0, 0, 1, 8, 7]); // type 1, +20
    bytes.extend_from_slice(&[0x84, 0, 0, 30, 7]); // type 2, +30
    bytes.extend_from_slice(&[0xC4, 7]); // type 3, +30 again
    assert_eq!(timestamps(&bytes), [1000, 1020, 1050, 1080]);
}

#[test]
fn type_3_after_type_0_adds_the_timestamp_again() {
    let bytes = [header0(4, 23, 1, 8), vec![7, 0xC4, 7]].concat();
    assert_eq!(timestamps(&bytes), [23, 46]);
}

#[test]
fn extended_timestamps_are_read_whether_type_3_repeats_them_or_not() {
    let time = 0x0123_4567u32;
    for repeats in [true, false] {
        let mut bytes = header0(6, EXTENDED, 300, 9);
        bytes.extend_from_slice(&time.to_be_bytes());
        for (index, len) in [128, 128, 44].into_iter().enumerate() {
            if index > 0 {
                bytes.push(0xC6);
                if repeats {
                    bytes.extend_from_slice(&time.to_be_bytes());
                }
            }
            bytes.extend_from_slice(&vec![index as u8 + 2; len]);
        }
        let messages = read(&bytes).unwrap();
        assert_eq!(messages.len(), 1, "repeats: {repeats}");
        assert_eq!(messages[0].timestamp, time);
        assert_eq!(messages[0].payload.len(), 300);
        assert!(messages[0].payload[128..].iter().all(|b| *b == 3 || *b == 4));
    }
}

#[test]
fn timestamps_wrap_at_32_bits() {
    let mut bytes = header0(4, EXTENDED, 1, 8);
    bytes.extend_from_slice(&0xFFFF_FFF0u32.to_be_bytes());
    bytes.push(7);
    bytes.extend_from_slice(&[0x84, 0, 0, 32, 7]);
    assert_eq!(timestamps(&bytes), [0xFFFF_FFF0, 16]);
}

#[test]
fn long_chunk_stream_ids_are_read() {
    for csid in [2, 63, 64, 319, 320, 65_599] {
        let mut out = BytesMut::new();
        encode_message(&mut out, csid, 5, 9, 1, &[8; 300], 128);
        let messages = read(&out).unwrap();
        assert_eq!((messages.len(), messages[0].csid), (1, csid));
    }
}

#[test]
fn a_payload_in_one_chunk_is_a_slice_of_the_input() {
    let mut out = BytesMut::new();
    encode_message(&mut out, 6, 0, 9, 1, &[5; 100], 128);
    let input = out.freeze();
    let mut reader = ChunkReader::new(Limits::STRANGER);
    reader.push(input.clone());
    let payload = reader.next().unwrap().unwrap().payload;
    assert_eq!(payload.as_ptr(), input[12..].as_ptr());
}

#[test]
fn chunk_size_changes_take_effect_at_once() {
    let mut bytes = control(1, 1000);
    bytes.extend_from_slice(&header0(4, 0, 500, 8));
    bytes.extend_from_slice(&[1; 500]);
    assert_eq!(read(&bytes).unwrap()[1].payload.len(), 500);
}

#[test]
fn lying_chunk_sizes_close_the_connection() {
    for size in [0, 1, 1 << 31, u32::MAX] {
        assert_eq!(read(&control(1, size)), Err(ChunkError::ChunkSize(size)));
    }
    assert_eq!(read(&header0(2, 0, 0, 1)), Err(ChunkError::ShortControl(1)));
    assert_eq!(read(&control(1, 0x7FFF_FFFF)).map(|m| m.len()), Ok(1));
}

#[test]
fn abort_drops_the_partial_message_and_its_memory() {
    let mut reader = ChunkReader::new(Limits::STRANGER);
    let begin = [header0(6, 0, 200, 9), vec![1; 128]].concat();
    assert_eq!(all(&mut reader, &begin), Ok(vec![]));
    assert!(reader.buffered() > 0);
    assert_eq!(all(&mut reader, &control(2, 6)).map(|m| m.len()), Ok(1));
    assert_eq!(reader.buffered(), 0);
    let next = [header0(6, 9, 1, 9), vec![3]].concat();
    assert_eq!(all(&mut reader, &next).unwrap()[0].payload[..], [3]);
}

#[test]
fn compressed_header_first_is_refused() {
    for format in [2u8, 3] {
        let error = ChunkError::NoPreviousHeader { csid: 5, format };
        assert_eq!(read(&[format << 6 | 5, 0, 0, 0]), Err(error));
    }
}

#[test]
fn a_new_message_inside_another_is_refused() {
    let begin = [header0(6, 0, 200, 9), vec![1; 128], header0(6, 0, 5, 9)].concat();
    assert_eq!(read(&begin), Err(ChunkError::HeaderInsideMessage { csid: 6, format: 0 }));
}

#[test]
fn a_message_over_the_limit_is_refused_by_its_header() {
    let error = ChunkError::MessageTooLong { csid: 6, len: 0xFF_FFFF, limit: 256 * 1024 };
    assert_eq!(read(&header0(6, 0, 0xFF_FFFF, 9)), Err(error));
}

#[test]
fn long_messages_declared_on_many_chunk_streams_stay_within_the_limits() {
    let limits = Limits { message: 1 << 20, chunk_streams: 64, buffered: 256 * 1024 };
    let mut reader = ChunkReader::new(limits);
    let mut failed = None;
    for csid in 3..63 {
        let part = [header0(csid, 0, 1 << 20, 9), vec![1; 128]].concat();
        if let Err(error) = all(&mut reader, &part) {
            failed = Some(error);
            break;
        }
        assert!(reader.buffered() <= limits.buffered);
    }
    assert_eq!(failed, Some(ChunkError::TooMuchBuffered { limit: limits.buffered }));
    let many: Vec<u8> = (3..40).flat_map(|csid| header0(csid, 0, 0, 8)).collect();
    assert_eq!(read(&many), Err(ChunkError::TooManyChunkStreams { limit: 16 }));
}

#[test]
fn empty_messages_are_messages() {
    assert_eq!(read(&header0(4, 3, 0, 8)).unwrap()[0].payload.len(), 0);
}

proptest! {
    #[test]
    fn what_is_written_is_read_in_any_cut(
        messages in prop::collection::vec(
            (2u32..400, any::<u32>(), 1u32..5, prop::collection::vec(any::<u8>(), 0..700)),
            1..6,
        ),
        chunk_size in 1u32..300,
        piece in 1usize..400,
    ) {
        let mut reader = ChunkReader::new(Limits::ACCEPTED);
        reader.chunk_size = chunk_size as usize;
        let mut out = BytesMut::new();
        for (csid, timestamp, stream_id, payload) in &messages {
            encode_message(&mut out, *csid, *timestamp, 9, *stream_id, payload, chunk_size);
        }
        let mut got = Vec::new();
        for bytes in out.chunks(piece) {
            got.extend(all(&mut reader, bytes).unwrap());
        }
        let got: Vec<_> = got
            .into_iter()
            .map(|m| (m.csid, m.timestamp, m.stream_id, m.payload.to_vec()))
            .collect();
        prop_assert_eq!(got, messages);
        prop_assert_eq!(reader.buffered(), 0);
    }
}
