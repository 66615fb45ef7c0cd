//! The matrix as text and as Markdown, and the page `docs/matrix.md`.
//!
//! The page is generated but for one section, which is measured: what `patchbay interop` found, between two markers.

use std::fmt::Write;

use crate::rule::POLICIES;
use crate::{Abilities, EndpointKind, ReasonCode, RuleTable, Symbol, explain, symbol};

/// The matrix as a table for terminals, with what its symbols mean.
pub fn text_table() -> String {
    let mut out = format!("{:<12}", "from \\ to");
    for to in EndpointKind::SINKS {
        // Writing to a String cannot fail; so in this whole file.
        let _ = write!(out, " {to:^11}");
    }
    out.truncate(out.trim_end().len());
    out.push('\n');
    for from in EndpointKind::SOURCES {
        let mut row = format!("{from:<12}");
        for to in EndpointKind::SINKS {
            let _ = write!(row, " {:^11}", symbol(from, to).sign());
        }
        let _ = writeln!(out, "{}", row.trim_end());
    }
    out.push('\n');
    for symbol in Symbol::ALL {
        let _ = writeln!(out, "{symbol}  {}", symbol.about());
    }
    out
}

/// The matrix as a Markdown table.
pub fn markdown_table() -> String {
    let mut out = String::from("| from \\ to |");
    for to in EndpointKind::SINKS {
        let _ = write!(out, " {to} |");
    }
    out.push_str("\n|---|");
    out.push_str(&"---|".repeat(EndpointKind::SINKS.len()));
    for from in EndpointKind::SOURCES {
        let _ = write!(out, "\n| **{from}** |");
        for to in EndpointKind::SINKS {
            let _ = write!(out, " {} |", symbol(from, to));
        }
    }
    out.push('\n');
    out
}

/// The pairs the page explains: source, sink, video, audio.
const EXAMPLES: [(EndpointKind, EndpointKind, Option<&str>, Option<&str>); 5] = [
    (EndpointKind::Rtmp, EndpointKind::Webrtc, None, None),
    (EndpointKind::Rtmp, EndpointKind::Webrtc, Some("h264:high:bframes=2"), None),
    (EndpointKind::Webrtc, EndpointKind::Rtmp, None, None),
    (EndpointKind::Udp, EndpointKind::Cdn, Some("h265"), Some("aac")),
    (EndpointKind::Sip, EndpointKind::H5, None, None),
];

/// Before and behind the measured section of a page.
const MEASURED: [&str; 2] = ["<!-- interop: begin -->\n", "<!-- interop: end -->\n"];

/// The measured section of `page`; `None` when the markers are not there.
pub fn measured_section(page: &str) -> Option<&str> {
    let (_, rest) = page.split_once(MEASURED[0])?;
    rest.split_once(MEASURED[1]).map(|(section, _)| section)
}

/// `page` with another measured section; `None` when the markers are not there.
pub fn with_measured_section(page: &str, section: &str) -> Option<String> {
    let (before, rest) = page.split_once(MEASURED[0])?;
    let (_, after) = rest.split_once(MEASURED[1])?;
    Some([before, MEASURED[0], section, MEASURED[1], after].concat())
}

/// The page `docs/matrix.md` around its measured section; a test keeps the file equal to it.
pub fn docs_page(measured: &str) -> String {
    let mut out = String::from(HEAD);
    out.push_str(&markdown_table());
    out.push('\n');
    for symbol in Symbol::ALL {
        let _ = writeln!(out, "- `{symbol}` {}", symbol.about());
    }
    out.push_str(CORRECTED);
    let _ = writeln!(out, "{PROVEN}{}{measured}{}", MEASURED[0], MEASURED[1]);
    out.push_str("## Kinds\n\n| kind | what it is |\n|---|---|\n");
    for kind in EndpointKind::ALL {
        let _ = writeln!(out, "| `{kind}` | {} |", kind.about());
    }
    out.push_str(RULES);
    out.push_str("| policy | meaning |\n|---|---|\n");
    for (word, meaning) in POLICIES {
        let _ = writeln!(out, "| `{word}` | {meaning} |");
    }
    out.push_str(KEYS);
    out.push_str("## Reasons\n\nEvery verdict carries a code for programs and a sentence for people.\n\n| code | meaning |\n|---|---|\n");
    for code in ReasonCode::ALL {
        let _ = writeln!(out, "| `{}` | {} |", code.name(), code.about());
    }
    out.push_str("\n## Examples\n\nAs `patchbay matrix explain` prints them, with every encoder and decoder at hand.\n");
    let rules = RuleTable::default();
    for (from, to, video, audio) in EXAMPLES {
        let flag = |name: &str, value: Option<&str>| value.map_or_else(String::new, |v| format!(" --{name} {v}"));
        let _ = write!(out, "\n```\n$ patchbay matrix explain --from {from} --to {to}{}{}\n", flag("video", video), flag("audio", audio));
        match explain(&rules, &Abilities::all(), (from, to), "live/example", video, audio) {
            Ok(explained) => out.push_str(&explained.to_string()),
            Err(error) => {
                let _ = writeln!(out, "{error}");
            }
        }
        out.push_str("```\n");
    }
    out
}

const HEAD: &str = "<!-- Generated from matrix/rules. `UPDATE_EXPECT=1 cargo test -p patchbay-rules` rewrites it. -->

# The matrix

For every source and sink the rule table says what happens to each track: it is passed through untouched or transcoded.
Without rules of your own this table decides. `patchbay matrix` prints it, `patchbay matrix explain` answers for one pair,
and `/v1/pairs` shows the verdict of every live pair.

";

const CORRECTED: &str = "
The table is corrected by reality, track by track. What the sink refuses is never passed: a source with B-frames is re-encoded
for a browser although its cell says \"pass\". And nothing is transcoded that is already what would come out: Opus carried in
RTMP stays Opus on its way to a browser. The reason says which.

";

const PROVEN: &str = "## The matrix as a test

`patchbay interop` drives every cell of the kinds that exist with real clients, counts stamped pictures and sound at both ends, and
compares the codecs on the wire with the ledger. The tests run it; `patchbay interop --url http://HOST:8080` asks a running deployment.
`patchbay interop --markdown docs/matrix.md` wrote what follows.

";

const RULES: &str = "
## Your own rules

Rules in the configuration come before the table; the first that fits a pair decides both tracks.

```toml
[[rules]]
name   = \"small-picture-for-mini-programs\"
from   = [\"rtmp\", \"webrtc\"]     # kinds of source; all when left out
to     = [\"miniprogram\"]        # kinds of sink; all when left out
stream = \"live/**\"              # `*` inside a part, `**` across parts; all when left out
video  = { codec = \"h264\", size = \"640x360\", bitrate_kbps = 600 }
audio  = \"auto\"

[[rules]]
to     = [\"webrtc\"]
stream = \"music/*\"
audio  = { codec = \"opus\", bitrate_kbps = 128, channels = 2 }
```

";

const KEYS: &str = "
A video table may have `codec`, `bitrate_kbps` (16 to 100000), `size` (such as `1280x720`), `fps` (1 to 120) and `gop_ms`
(100 to 30000); an audio table `codec`, `bitrate_kbps` (6 to 512), `rate` (8000 to 48000) and `channels` (1 or 2). What is left
out is chosen: the sink's first codec, the source's size, rate and channels, a bit rate by size or channels, and a key
frame every 2000 ms. H.264 that patchbay encodes has no B-frames.

";
