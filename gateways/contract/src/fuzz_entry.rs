//! One function per fuzz target, so that the fuzzer and the replay of saved inputs in this crate's tests run the same code.
//! Each must return, whatever the bytes are.

use axum::http::{HeaderMap, HeaderValue, Uri, header};

use crate::Credentials;

/// A target's name and its function.
pub type Target = (&'static str, fn(&[u8]));

/// Every target with the name of its folder of saved inputs.
pub const TARGETS: [Target; 1] = [("credentials", credentials)];

/// A query, a line end, and an `Authorization`. What is found is within its bounds and never shown.
pub fn credentials(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let (query, authorization) = text.split_once('\n').unwrap_or((&text, ""));
    let header = HeaderValue::from_str(authorization).map(|value| (header::AUTHORIZATION, value));
    let headers: HeaderMap = header.into_iter().collect();
    let uri = format!("/x?{query}").parse::<Uri>().unwrap_or_default();
    for found in [Credentials::of_http(&uri, &headers), Credentials::of_queries(&[query, authorization], Some(authorization))] {
        assert!(found.token().is_none_or(|token| !token.is_empty() && token.len() <= Credentials::TOKEN_MAX));
        assert!(found.query().len() <= Credentials::QUERY_MAX);
        assert!(["***", "none"].contains(&format!("{found:?}").as_str()));
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn saved_inputs_are_survived() {
        patchbay_seeds::replay(&super::TARGETS);
    }
}
