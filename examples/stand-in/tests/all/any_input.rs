//! Whatever a client sends gets an answer, and JSON that is written is read back as it was.

use grafolean_stand_in::{Admin, Backend, Config, Json, Request};
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

/// Objects with the keys that the resources of an administrator know, some of them with values that fit.
fn admin_body() -> impl Strategy<Value = Json> {
    let key = prop_oneof![
        4 => prop::sample::select(vec![
            "name", "protocol", "details", "default_interval", "config", "resource_prefix", "methods", "p", "t0",
            "t1", "username", "password", "email",
        ])
        .prop_map(str::to_owned),
        1 => any::<String>(),
    ];
    let value = prop_oneof![
        3 => prop::sample::select(vec!["ping", "a", "{\"a\":1}", "[NaN]", "\0", "a,b", "2.5"]).prop_map(Json::from),
        1 => Just(Json::object()),
        1 => Just(Json::List(vec![Json::from("GET")])),
        3 => any_json(),
    ];
    prop_oneof![
        6 => prop::collection::btree_map(key, value, 0..8).prop_map(|e| Json::Object(e.into_iter().collect())),
        1 => any_json(),
    ]
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
    fn anything_an_administrator_sends_gets_an_answer_and_leaves_lists_that_can_be_read(
        requests in prop::collection::vec(
            (
                prop_oneof![Just("POST"), Just("PUT"), Just("DELETE"), Just("GET"), Just("get")],
                r"/(admin/(accounts|first|migratedb|[a-z]{0,3})|auth/(login|refresh)|(accounts/(1|x|))?(/(credentials|sensors|bots|getvalues|values))?(/(11|21|41|42|x|-1))?(/(permissions|token)(/1)?)?)/?",
                admin_body(),
            ),
            1..12,
        ),
    ) {
        let mut backend = backend();
        backend.set_admin(Admin::new("secret"));
        for (method, path, body) in requests {
            let body = body.to_compact().unwrap_or_else(|_| "NaN".to_owned());
            let mut request = Request::json(method, &format!("/api{path}"), body);
            request.authorization = Some(b"Bearer 1:secret".to_vec());
            let reply = backend.answer(&request, 5);
            prop_assert!([200, 201, 204, 307, 400, 401, 403, 404, 405, 422, 500, 501].contains(&reply.status));
        }
        for list in ["accounts", "bots", "accounts/1/credentials", "accounts/1/sensors", "accounts/1/bots"] {
            let mut request = Request::get(&format!("/api/{list}"));
            request.authorization = Some(b"Bearer 1:secret".to_vec());
            let reply = backend.answer(&request, 5);
            prop_assert_eq!(reply.status, 200, "{}", list);
            prop_assert!(reply.text().parse::<Json>().is_ok());
        }
    }

    #[test]
    fn any_authorization_header_gets_an_answer(header in prop::collection::vec(any::<u8>(), 0..40), bearer in any::<bool>()) {
        let mut request = Request::get("/api/profile");
        let start: &[u8] = if bearer { b"Bearer 1:" } else { b"" };
        request.authorization = Some([start, &header[..]].concat());
        let mut backend = backend();
        backend.set_admin(Admin::new("secret"));
        let status = backend.answer(&request, 5).status;
        prop_assert!(status == 401 || status == 500 || header.ends_with(b"secret"), "{}", status);
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
