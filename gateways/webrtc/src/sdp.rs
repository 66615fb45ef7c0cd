//! Reads what matters of a WHIP or WHEP offer before anything is created for it, and trims the offer to what this
//! gateway does: one direction, no candidates (an ICE-lite agent learns addresses from checks), and only from a publisher
//! several encodings of a picture.

use patchbay_contract::{Code, Refusal};
use patchbay_media::{Codec, H264Profile};

/// Most m-sections that are looked at.
const SECTIONS_MAX: usize = 8;
/// Most lines of an offer.
const LINES_MAX: usize = 2_000;

/// Most encodings of one picture (RFC 8853).
pub(crate) const LAYERS_MAX: usize = 4;

/// Which way media goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    /// WHIP: the peer sends.
    Publish,
    /// WHEP: the peer receives.
    Play,
}

/// An offer that can be answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Offer {
    /// The offer as str0m shall see it.
    pub(crate) text: String,
    /// The peer's ICE user name fragment.
    pub(crate) ufrag: String,
    /// H.264 profiles of its video section, none without one.
    pub(crate) h264: Vec<H264Profile>,
    /// What a publisher without H.264 can send instead.
    pub(crate) instead: Vec<Codec>,
    /// Whether its audio section has Opus.
    pub(crate) opus: bool,
}

struct Section<'a> {
    kind: &'a str,
    lines: Vec<&'a str>,
}

impl<'a> Section<'a> {
    fn attributes(&self, name: &'a str) -> impl Iterator<Item = &'a str> + '_ {
        self.lines.iter().filter_map(move |line| line.strip_prefix("a=")?.strip_prefix(name)?.strip_prefix(':'))
    }

    fn direction(&self) -> &'a str {
        let known = |line: &&'a str| matches!(*line, "a=sendrecv" | "a=sendonly" | "a=recvonly" | "a=inactive");
        self.lines.iter().copied().find(known).map_or("sendrecv", |line| &line[2..])
    }

    /// Payload types whose `rtpmap` names this encoding.
    fn payload_types(&self, encoding: &str) -> Vec<&'a str> {
        let of = |map: &'a str| {
            let (pt, name) = map.split_once(' ')?;
            let (name, rest) = name.split_once('/')?;
            (name.eq_ignore_ascii_case(encoding) && !rest.is_empty()).then_some(pt)
        };
        self.attributes("rtpmap").filter_map(of).collect()
    }

    fn h264_profiles(&self) -> Vec<H264Profile> {
        let types = self.payload_types("H264");
        let mut out = Vec::new();
        for fmtp in self.attributes("fmtp") {
            let Some((pt, parameters)) = fmtp.split_once(' ') else { continue };
            let get = |name: &str| {
                let pairs = parameters.split(';').filter_map(|p| p.trim().split_once('='));
                pairs.into_iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim())
            };
            // Mode 0 has no fragments; frames would have to be encoded for it.
            if types.contains(&pt) && get("packetization-mode") == Some("1") && out.len() < 16 {
                let id = get("profile-level-id").and_then(|id| u32::from_str_radix(id, 16).ok()).unwrap_or(0x42000a);
                out.push(H264Profile { idc: (id >> 16) as u8, constraints: (id >> 8) as u8, level: id as u8 });
            }
        }
        out
    }
}

fn bad(message: impl Into<String>) -> Refusal {
    Refusal::new(Code::BadRequest, message)
}

fn unprocessable(message: impl Into<String>) -> Refusal {
    Refusal::new(Code::Unprocessable, message)
}

impl Offer {
    /// Reads an offer.
    ///
    /// # Errors
    /// `bad_request` for what is no SDP, `unprocessable` for sections that contradict the role, `not_acceptable` when
    /// no codec is left.
    pub(crate) fn read(sdp: &str, role: Role) -> Result<Self, Refusal> {
        let lines: Vec<&str> = sdp.lines().map(|line| line.trim_end_matches('\r')).filter(|line| !line.is_empty()).collect();
        if lines.first() != Some(&"v=0") || lines.len() > LINES_MAX {
            return Err(bad("the body is not an SDP offer: it must begin with v=0 and have at most 2000 lines"));
        }
        let (head, sections) = split(&lines)?;
        let everywhere = || head.iter().chain(sections.iter().flat_map(|s| &s.lines));
        let find = |prefix: &str| everywhere().find_map(|line| line.strip_prefix(prefix)).map(str::to_owned);
        let ufrag = find("a=ice-ufrag:").ok_or_else(|| bad("the offer has no a=ice-ufrag"))?;
        if find("a=fingerprint:").is_none() {
            return Err(bad("the offer has no a=fingerprint"));
        }
        let (mut h264, mut instead, mut opus, mut kinds) = (Vec::new(), Vec::new(), false, Vec::new());
        for section in &sections {
            check_section(section, role, &mut kinds)?;
            match section.kind {
                "video" => {
                    h264 = section.h264_profiles();
                    // A viewer is sent H.264 or nothing; from a publisher anything that can be decoded is welcome.
                    let is_needed = role == Role::Publish && h264.is_empty();
                    let offered = |codec: &Codec| is_needed && !section.payload_types(codec.name()).is_empty();
                    instead = [Codec::Vp8, Codec::Vp9, Codec::Av1].into_iter().filter(offered).collect();
                }
                _ => opus = !section.payload_types("opus").is_empty(),
            }
            let empty = if section.kind == "video" { h264.is_empty() && instead.is_empty() } else { !opus };
            if empty && role == Role::Publish {
                return Err(no_codec(section.kind));
            }
        }
        if h264.is_empty() && instead.is_empty() && !opus {
            return Err(no_codec("any section"));
        }
        Ok(Self { text: rewrite(&head, &sections, role), ufrag, h264, instead, opus })
    }
}

fn no_codec(place: &str) -> Refusal {
    Refusal::new(
        Code::NotAcceptable,
        format!(
            "no usable codec for {place}: offer H.264 with packetization-mode=1 (a publisher may offer VP8, VP9 or AV1) for video and Opus for audio"
        ),
    )
}

fn split<'a>(lines: &[&'a str]) -> Result<(Vec<&'a str>, Vec<Section<'a>>), Refusal> {
    let (mut head, mut sections) = (Vec::new(), Vec::<Section<'a>>::new());
    for &line in lines {
        if let Some(media) = line.strip_prefix("m=") {
            let kind = media.split(' ').next().unwrap_or_default();
            sections.push(Section { kind, lines: vec![line] });
        } else if let Some(section) = sections.last_mut() {
            section.lines.push(line);
        } else {
            head.push(line);
        }
    }
    match sections.len() {
        0 => Err(bad("the offer has no m-section")),
        n if n > SECTIONS_MAX => Err(bad(format!("the offer has {n} m-sections, more than {SECTIONS_MAX}"))),
        _ => Ok((head, sections)),
    }
}

fn check_section<'a>(section: &Section<'a>, role: Role, kinds: &mut Vec<&'a str>) -> Result<(), Refusal> {
    let kind = section.kind;
    if !matches!(kind, "audio" | "video") {
        return Err(unprocessable(format!("an m-section of type {kind:?} is not supported; offer audio and video only")));
    }
    if kinds.contains(&kind) {
        return Err(unprocessable(format!("the offer has two {kind} sections; one is supported")));
    }
    kinds.push(kind);
    let direction = section.direction();
    let (refused, wanted) = match role {
        Role::Publish => (matches!(direction, "recvonly" | "inactive"), "sendonly"),
        Role::Play => (matches!(direction, "sendonly" | "inactive"), "recvonly"),
    };
    if refused {
        return Err(unprocessable(format!("the {kind} section is {direction}; it must be {wanted}")));
    }
    Ok(())
}

fn rewrite(head: &[&str], sections: &[Section<'_>], role: Role) -> String {
    let mut out = String::with_capacity(8_192);
    let mut line = |text: &str| {
        out.push_str(text);
        out.push_str("\r\n");
    };
    for text in head {
        line(text);
    }
    for section in sections {
        let encodings = section.attributes("rid").count();
        let keeps_layers = role == Role::Publish && section.kind == "video" && encodings <= LAYERS_MAX;
        for text in &section.lines {
            let is = |prefixes: &[&str]| prefixes.iter().any(|prefix| text.starts_with(prefix));
            let dropped = is(&["a=candidate:", "a=end-of-candidates"])
                || !keeps_layers && is(&["a=simulcast:", "a=rid:"])
                || matches!(*text, "a=sendrecv" | "a=sendonly" | "a=recvonly" | "a=inactive");
            if !dropped {
                line(text);
            }
        }
        line(match role {
            Role::Publish => "a=sendonly",
            Role::Play => "a=recvonly",
        });
    }
    out
}

/// A trickle ICE fragment (RFC 8840 §9).
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Fragment {
    pub(crate) ufrag: Option<String>,
    pub(crate) pwd: Option<String>,
    /// Of its first m-section.
    pub(crate) mid: Option<String>,
}

impl Fragment {
    /// Reads one; candidates in it are checked for shape and not needed.
    ///
    /// # Errors
    /// `bad_request` when a line is not of the grammar.
    pub(crate) fn read(text: &str) -> Result<Self, Refusal> {
        let mut out = Self::default();
        for line in text.lines().map(|line| line.trim_end_matches('\r')).filter(|line| !line.is_empty()) {
            let (name, value) = line.split_once('=').ok_or_else(|| bad(format!("{:?} is not a line of an SDP fragment", clip(line))))?;
            if !matches!(name, "a" | "m" | "c" | "o" | "s" | "t" | "v") {
                return Err(bad(format!("{:?} is not a line of an SDP fragment", clip(line))));
            }
            for (prefix, place) in [("ice-ufrag:", &mut out.ufrag), ("ice-pwd:", &mut out.pwd), ("mid:", &mut out.mid)] {
                if let Some(value) = value.strip_prefix(prefix).filter(|value| is_ice_chars(value)) {
                    place.get_or_insert_with(|| value.to_owned());
                }
            }
            if value.strip_prefix("candidate:").is_some_and(|c| c.split(' ').count() < 8) {
                return Err(bad(format!("{:?} is not a candidate", clip(line))));
            }
        }
        Ok(out)
    }
}

/// What a user name fragment or a password may be (RFC 8839 §5.4); RFC 5888 gives `mid` no less.
fn is_ice_chars(value: &str) -> bool {
    (1..=256).contains(&value.len()) && value.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'/' | b'-' | b'_'))
}

fn clip(line: &str) -> String {
    line.chars().take(80).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: &str = "v=0\r\no=- 1 2 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\na=group:BUNDLE 0 1\r\n";
    const ICE: &str = "a=ice-ufrag:abcd\r\na=ice-pwd:0123456789012345678901\r\na=fingerprint:sha-256 AA\r\na=setup:actpass\r\n";
    const VP8_THEN_H264: &str = "m=video 9 UDP/TLS/RTP/SAVPF 96 102 103\r\na=mid:0\r\na=sendrecv\r\na=candidate:1 1 udp 1 x.local 9 typ host\r\n\
        a=rtpmap:96 VP8/90000\r\na=rtpmap:102 H264/90000\r\na=fmtp:102 packetization-mode=1;profile-level-id=42e01f\r\n\
        a=rtpmap:103 H264/90000\r\na=fmtp:103 packetization-mode=0;profile-level-id=42e01f\r\n";
    const OPUS: &str = "m=audio 9 UDP/TLS/RTP/SAVPF 111\r\na=mid:1\r\na=sendonly\r\na=rtpmap:111 opus/48000/2\r\n";

    #[test]
    fn an_offer_is_read_and_trimmed_to_one_direction() {
        let offer = Offer::read(&format!("{HEAD}{VP8_THEN_H264}{ICE}{OPUS}{ICE}"), Role::Publish).unwrap();
        assert_eq!(offer.h264, [H264Profile { idc: 0x42, constraints: 0xe0, level: 0x1f }]);
        assert!(offer.opus);
        assert_eq!(offer.ufrag, "abcd");
        assert!(!offer.text.contains("candidate") && !offer.text.contains("sendrecv"));
        assert_eq!(offer.text.matches("a=sendonly").count(), 2);
    }

    #[test]
    fn offers_that_cannot_work_are_refused_by_code() {
        let vp8 = "m=video 9 UDP/TLS/RTP/SAVPF 96\r\na=mid:0\r\na=sendonly\r\na=rtpmap:96 VP8/90000\r\n";
        let h265 = vp8.replace("VP8", "H265");
        let data = "m=application 9 UDP/DTLS/SCTP webrtc-datachannel\r\na=mid:0\r\n";
        for (sdp, role, code) in [
            (String::new(), Role::Publish, Code::BadRequest),
            ("hello".into(), Role::Publish, Code::BadRequest),
            (HEAD.into(), Role::Publish, Code::BadRequest),
            (format!("{HEAD}{OPUS}"), Role::Publish, Code::BadRequest),
            (format!("{HEAD}{OPUS}{ICE}"), Role::Play, Code::Unprocessable),
            (format!("{HEAD}{OPUS}{ICE}{OPUS}"), Role::Publish, Code::Unprocessable),
            (format!("{HEAD}{data}{ICE}"), Role::Publish, Code::Unprocessable),
            (format!("{HEAD}{h265}{ICE}"), Role::Publish, Code::NotAcceptable),
            (format!("{HEAD}{}{ICE}", vp8.replace("sendonly", "recvonly")), Role::Play, Code::NotAcceptable),
        ] {
            assert_eq!(Offer::read(&sdp, role).err().map(|e| e.code), Some(code), "{sdp}");
        }
    }

    #[test]
    fn a_publisher_without_h264_is_taken_with_what_it_has() {
        let others = "m=video 9 UDP/TLS/RTP/SAVPF 96 98 45\r\na=mid:0\r\na=sendonly\r\na=rtpmap:96 vp8/90000\r\na=rtpmap:98 VP9/90000\r\n\
            a=rtpmap:45 AV1/90000\r\n";
        let offer = Offer::read(&format!("{HEAD}{others}{ICE}"), Role::Publish).unwrap();
        assert_eq!((offer.instead, offer.h264.len()), (vec![Codec::Vp8, Codec::Vp9, Codec::Av1], 0));
        let offer = Offer::read(&format!("{HEAD}{VP8_THEN_H264}{ICE}"), Role::Publish).unwrap();
        assert_eq!(offer.instead, [], "H.264 passes everywhere, so it alone is answered");
    }

    #[test]
    fn a_publisher_keeps_its_layers_unless_there_are_too_many() {
        let layers = |n: usize| (0..n).map(|i| format!("a=rid:{i} send\r\n")).collect::<String>() + "a=simulcast:send 0;1\r\n";
        let offer = |n, role| Offer::read(&format!("{HEAD}{}{}{ICE}", VP8_THEN_H264, layers(n)), role).unwrap().text;
        assert!(offer(LAYERS_MAX, Role::Publish).contains("a=simulcast:send 0;1\r\n"));
        assert!(!offer(LAYERS_MAX + 1, Role::Publish).contains("a=rid:"));
    }

    #[test]
    fn a_viewer_without_h264_may_still_listen() {
        let vp8 = "m=video 9 UDP/TLS/RTP/SAVPF 96\r\na=mid:0\r\na=recvonly\r\na=rtpmap:96 VP8/90000\r\n";
        let audio = OPUS.replace("sendonly", "recvonly");
        let offer = Offer::read(&format!("{HEAD}{vp8}{ICE}{audio}"), Role::Play).unwrap();
        assert!(offer.h264.is_empty() && offer.opus);
    }

    #[test]
    fn fragments_are_checked() {
        let good = "a=ice-ufrag:abcd\r\na=ice-pwd:x\r\nm=audio 9 RTP/AVP 0\r\na=mid:0\r\na=candidate:1 1 udp 1 1.2.3.4 9 typ host\r\n";
        let fragment = Fragment::read(good).unwrap();
        assert_eq!((fragment.ufrag.as_deref(), fragment.pwd.as_deref(), fragment.mid.as_deref()), (Some("abcd"), Some("x"), Some("0")));
        assert!(Fragment::read("a=candidate:garbage").is_err());
        assert!(Fragment::read("not sdp").is_err());
    }
}
