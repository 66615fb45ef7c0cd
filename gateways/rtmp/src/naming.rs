//! From what a peer dialled to a stream name, a key and a kind. Refuses: to judge the first two.

use patchbay_bus::{BadName, StreamName};
use patchbay_contract::{Code, Credentials, Refusal};
use patchbay_rules::EndpointKind;

use crate::proto::server::Connect;

/// The kinds of endpoint that speak RTMP and FLV.
const KINDS: [EndpointKind; 3] = [EndpointKind::Rtmp, EndpointKind::Miniprogram, EndpointKind::Cdn];
/// Longest software name that is kept, bytes.
const AGENT_MAX: usize = 256;

/// `app/name`, or the one of them that is not empty.
pub(crate) fn stream_name(app: &str, name: &str) -> Result<StreamName, BadName> {
    let (app, name) = (app.trim_matches('/'), name.trim_matches('/'));
    match (app, name) {
        ("", one) | (one, "") => one.parse(),
        _ => format!("{app}/{name}").parse(),
    }
}

/// What the peer brought in one of `queries`, else the password in `url`.
pub(crate) fn credentials(queries: &[&str], url: &str) -> Credentials {
    Credentials::of_queries(queries, password(url))
}

fn password(url: &str) -> Option<&str> {
    let (_, rest) = url.split_once("://")?;
    let (user_info, _) = rest.split('/').next()?.rsplit_once('@')?;
    user_info.split_once(':').map(|(_, password)| password)
}

/// What `connect` would say as its tcUrl at another server, `rtmp://HOST[:PORT]`.
pub(crate) fn tc_url(server: &str, connect: &Connect) -> String {
    let (app, query) = (&connect.app, &connect.query);
    if query.is_empty() { format!("{server}/{app}") } else { format!("{server}/{app}?{query}") }
}

/// The kind of endpoint that a peer says it is, in one of `queries` (`kind=`).
///
/// # Errors
/// A kind that does not speak RTMP or FLV, or none at all: who says something of itself wants it to count.
pub(crate) fn kind(queries: &[&str]) -> Result<Option<EndpointKind>, Refusal> {
    let pairs = queries.iter().flat_map(|query| url::form_urlencoded::parse(query.as_bytes()));
    let mut said = pairs.filter(|(name, _)| name == "kind").map(|(_, value)| value);
    let Some(word) = said.next() else { return Ok(None) };
    let known = KINDS.into_iter().find(|kind| kind.name() == word);
    known.map(Some).ok_or_else(|| {
        let (word, known): (String, _) = (word.chars().take(32).collect(), KINDS.map(EndpointKind::name).join(", "));
        Refusal::new(Code::BadRequest, format!("?kind={word:?} is none of {known}; without it the route of the name decides"))
    })
}

/// What a peer says it is, shortened; `None` when it says nothing.
pub(crate) fn agent(text: &str) -> Option<String> {
    let clean = text.chars().filter(|c| !c.is_control());
    let mut kept = String::new();
    for c in clean {
        if kept.len() + c.len_utf8() > AGENT_MAX {
            break;
        }
        kept.push(c);
    }
    (!kept.is_empty()).then_some(kept)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn application_and_name_are_joined() {
        for (app, name, stream) in [
            ("live", "demo", "live/demo"),
            ("", "demo", "demo"),
            ("demo", "", "demo"),
            ("live/inst", "/a", "live/inst/a"),
            ("/live/", "a", "live/a"),
        ] {
            assert_eq!(stream_name(app, name).unwrap().as_str(), stream);
        }
        assert!(stream_name("", "").is_err() && stream_name("live", "../a").is_err());
    }

    #[test]
    fn a_password_is_a_key_where_the_queries_have_none() {
        let token = |queries: &[&str], url| credentials(queries, url).token().map(str::to_owned);
        assert_eq!(token(&["", "token=t"], "rtmp://u:p@h/live").as_deref(), Some("t"));
        assert_eq!(token(&["", ""], "rtmp://u:p@h/live").as_deref(), Some("p"));
        assert_eq!(token(&["key="], "rtmp://h/live:a@b"), None);
    }

    #[test]
    fn a_peer_finds_its_application_at_another_server() {
        let mut connect = Connect { app: "live/inst".into(), ..Connect::default() };
        assert_eq!(tc_url("rtmp://b:1936", &connect), "rtmp://b:1936/live/inst");
        connect.query = "key=k".into();
        assert_eq!(tc_url("rtmp://b:1936", &connect), "rtmp://b:1936/live/inst?key=k");
    }

    #[test]
    fn a_peer_may_say_its_kind_and_is_told_when_there_is_no_such() {
        assert_eq!(kind(&["key=a", ""]), Ok(None));
        assert_eq!(kind(&["", "key=a&kind=miniprogram"]), Ok(Some(EndpointKind::Miniprogram)));
        assert_eq!(kind(&["kind=cdn", "kind=rtmp"]), Ok(Some(EndpointKind::Cdn)));
        for wrong in ["kind=webrtc", "kind=", "kind=Cdn"] {
            let refusal = kind(&[wrong]).unwrap_err();
            assert_eq!(refusal.code, Code::BadRequest);
            assert!(refusal.message.contains("rtmp, miniprogram, cdn"), "{refusal}");
        }
    }

    #[test]
    fn the_software_name_is_cut_and_cleaned() {
        assert_eq!(agent("a\r\nb").as_deref(), Some("ab"));
        assert_eq!(agent(&"é".repeat(500)).map(|a| a.len()), Some(256));
        assert_eq!(agent(""), None);
    }
}
