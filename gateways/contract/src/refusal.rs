//! [`Refusal`]: why something was not done, by one code that API, log line and protocol reply share.

use std::fmt;

use serde::Serialize;

macro_rules! codes {
    ($($variant:ident, $name:literal, $status:literal, $doc:literal;)*) => {
        /// Reason code of a refusal.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Code {
            $(#[doc = $doc] $variant,)*
        }

        impl Code {
            /// Every code.
            pub const ALL: &'static [Self] = &[$(Self::$variant),*];

            /// The code as it appears in API bodies, log lines and protocol replies.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }

            /// The HTTP status that carries it.
            pub const fn http_status(self) -> u16 {
                match self { $(Self::$variant => $status,)* }
            }

            /// What it means, for documents.
            pub const fn meaning(self) -> &'static str {
                match self { $(Self::$variant => $doc,)* }
            }
        }
    };
}

codes! {
    BadStreamName, "bad_stream_name", 400, "The stream name breaks the grammar.";
    BadRequest, "bad_request", 400, "The request does not parse or contradicts itself.";
    Unauthorized, "unauthorized", 401, "A key or token is missing or wrong.";
    AddressRefused, "address_refused", 403, "The address may not be dialled from here.";
