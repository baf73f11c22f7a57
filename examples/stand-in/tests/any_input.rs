//! Whatever a client sends gets an answer, and JSON that is written is read back as it was.
// Helpers of tests may fail as tests do.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use grafolean_stand_in::{Backend, Config, Json, Request};
use proptest::prelude::*;

const PING: &str = "11111111-1111-4111-8111-111111111111";

fn backend() -> Backend {
    let mut backend = Backend::in_memory(1).unwrap();
    Config::demo().unwrap().apply(&mut backend, 0).unwrap();
    backend
}

fn any_json() -> impl Strategy<Value = Json> {
    let leaf = prop_oneof![
        Just(Json::Null),
        any::<bool>().prop_map(Json::Bool),
        any::<i128>().prop_map(|i| Json::Int(i.to_string())),
        any::<f64>().prop_filter("JSON has no others", |x| x.is_finite()).prop_map(Json::Float),
        any::<String>().prop_map(Json::Str),
    ];
    leaf.prop_recursive(4, 40, 6, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(Json::List),
            prop::collection::btree_map(any::<String>(), inner, 0..6)
                .prop_map(|entries| Json::Object(entries.into_iter().collect())),
        ]
    })
}

proptest! {
    #[test]
    fn what_is_written_is_read_back(value in any_json()) {
        let text = value.to_compact().unwrap();
        prop_assert_eq!(text.parse::<Json>().unwrap(), value);
    }

    #[test]
    fn any_bytes_are_json_or_an_error(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = Json::from_bytes(&bytes);
    }

    #[test]
    fn text_that_looks_like_json_is_json_or_an_error(text in r#"[\[\]{}",:\\u0-9a-fd8.eE+\-nulNatrusIity ]{0,60}"#) {
        if let Ok(value) = text.parse::<Json>() && let Ok(written) = value.to_compact() {
            prop_assert_eq!(written.parse::<Json>().unwrap().to_compact().unwrap(), written);
        }
    }
}

proptest! {
    // Each case has a backend of its own.
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_request_gets_an_answer(
        method in "(GET|HEAD|POST|PUT|DELETE|PATCH|[a-z]{1,5})",
        path in r"(/api)?(/(accounts|profile|1|values|entities|31|sensors|credentials|bots|%2e|ć|[ -~]{0,6})){0,6}/?",
        query in r"([ -~]{0,10}&)?",
        known in any::<bool>(),
        body in prop::collection::vec(any::<u8>(), 0..60),
    ) {
        let token = if known { PING } else { "x" };
        let reply = backend().answer(&Request::json(&method, &format!("{path}?{query}b={token}"), body), 5);
        prop_assert!([200, 201, 204, 307, 400, 401, 403, 404, 405, 422, 500, 501].contains(&reply.status));
    }

    #[test]
    fn any_values_get_an_answer_that_tells_what_was_stored(
        items in prop::collection::vec((r"[a-c%23ea .\n]{0,6}", any_json(), any_json()), 0..120),
        put in any::<bool>(),
    ) {
        let items = items.into_iter().map(|(p, v, t)| {
            let mut entries = vec![("p".to_owned(), Json::Str(p)), ("v".to_owned(), v)];
            if put {
                entries.push(("t".to_owned(), t));
            }
            Json::Object(entries)
        });
        let body = Json::List(items.collect()).to_compact().unwrap();
        let mut backend = backend();
        let method = if put { "PUT" } else { "POST" };
        let reply = backend.answer(&Request::json(method, &format!("/api/accounts/1/values/?b={PING}"), body), 5);
        prop_assert!([204, 400, 500].contains(&reply.status));
        for stored in &reply.stored {
            let values = backend.values_of(1, &stored.path).unwrap();
            prop_assert!(values.iter().any(|(time_us, _)| *time_us == stored.time_us));
        }
        prop_assert_eq!(backend.value_count() > 0, !reply.stored.is_empty());
    }
}
