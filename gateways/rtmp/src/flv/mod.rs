//! FLV: tag bodies ([`tag`]), which are also the payloads of RTMP audio and video messages, and
//! the byte stream around them ([`mux`]).

pub mod mux;
pub mod tag;
