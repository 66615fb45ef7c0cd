//! Makes one synchronised stream of an answer's tracks.
//!
//! A browser lip-syncs the tracks of one MediaStream (RFC 8830 `a=msid`) with one CNAME (RFC 3550 §6.5.1); str0m gives
//! every m-line of an answer its own of both.

/// Renames every stream id and CNAME of `answer` to the first of its kind. The ids are random words of 20 letters or
/// more, so that a replacement meets nothing else.
pub(crate) fn as_one_stream(answer: String) -> String {
    let streams = words_after(&answer, "a=msid:");
    let names: Vec<String> = answer.lines().filter_map(|l| l.split_once(" cname:")).map(|(_, name)| name.trim().to_owned()).collect();
    let unified = unify(answer, &streams);
    let unified = unify(unified, &names);
    match streams.first() {
        Some(stream) => unified.replace(&format!("WMS {stream} {stream}"), &format!("WMS {stream}")),
        None => unified,
    }
}

fn words_after(text: &str, prefix: &str) -> Vec<String> {
    text.lines().filter_map(|l| l.strip_prefix(prefix)).filter_map(|rest| rest.split_whitespace().next()).map(str::to_owned).collect()
}

fn unify(text: String, ids: &[String]) -> String {
    let Some(first) = ids.first() else { return text };
    ids.iter().filter(|id| *id != first && id.len() >= 20).fold(text, |text, id| text.replace(id.as_str(), first))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn audio_and_video_become_one_stream_with_one_cname() {
        let answer = "a=msid-semantic: WMS streamAAAAAAAAAAAAAAAAAA streamBBBBBBBBBBBBBBBBBB\r\n\
            m=audio 9 x 111\r\na=msid:streamAAAAAAAAAAAAAAAAAA track1\r\na=ssrc:1 cname:nameAAAAAAAAAAAAAAAAAAAA\r\n\
            m=video 9 x 102\r\na=msid:streamBBBBBBBBBBBBBBBBBB track2\r\na=ssrc:2 cname:nameBBBBBBBBBBBBBBBBBBBB\r\n";
        let one = as_one_stream(answer.into());
        assert_eq!(one.matches("streamAAAAAAAAAAAAAAAAAA").count(), 3);
        assert_eq!(one.matches("nameAAAAAAAAAAAAAAAAAAAA").count(), 2);
        assert!(!one.contains("BBBB") && one.contains("track1") && one.contains("track2"), "{one}");
    }
}
