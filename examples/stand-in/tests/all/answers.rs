//! What the backend answers and keeps, asked without sockets; each fact was seen on the real one.

use grafolean_stand_in::{
    Account, Backend, Bot, ChangeError, Credential, Entity, Json, ListKind, Permission, Reply, ReplyBody,
    Request, Sensor, Token,
};

const PING: &str = "3bfae491-8c49-42ca-8332-0ae431d59014";
const MY: &str = "6dd02b71-0539-4175-a486-6cff92a38ae4";
const BARE: &str = "1148055b-989a-477a-aec6-11b0e8010871";
const ONE: &str = "0f4c2a52-6a0c-4b8f-9d57-5f6d2f6c3a11";
const NOW: i64 = 1_795_370_400_123_456;

fn token(text: &str) -> Token {
    Token::new(text).unwrap()
}

/// Accounts 1 and 2; the systemwide ping bot 71, the bot 72 of account 1 for `my`, the bot 73 without permissions.
fn backend() -> Backend {
    let mut b = Backend::in_memory(42).unwrap();
    b.set_account(Account { id: 1, name: "Main account".into() }).unwrap();
    b.set_account(Account { id: 2, name: "Drugi račun — \"B\" \\ 📈".into() }).unwrap();
    b.set_credential(1, Credential::new(11, "My credential", "my").detail("user", "uć")).unwrap();
    b.set_credential(1, Credential::new(12, "Ping credential", "ping")).unwrap();
    b.set_sensor(1, Sensor::new(21, "Every minute", "my", Some(60)).detail("metric", "load")).unwrap();
    b.set_sensor(1, Sensor::new(22, "No interval", "my", None)).unwrap();
    b.set_sensor(1, Sensor::new(23, "Ping sensor", "ping", Some(60))).unwrap();
    b.set_bot(Bot::systemwide(71, "Ping", "ping").token(token(PING))).unwrap();
    b.set_bot(Bot::of_account(72, "My bot", 1, Some("my")).token(token(MY))).unwrap();
    b.set_bot(Bot::of_account(73, "Bare", 1, None).token(token(BARE)).permissions([])).unwrap();
    let device = Entity::device(31, "Device").detail("ipv4", "127.0.0.1");
    b.set_entity(1, device.protocol("my", 11, 72, [(21, None), (22, Some(15))])).unwrap();
    b.set_entity(1, Entity::device(30, "Pinged").protocol("ping", 12, 71, [(23, None)])).unwrap();
    b
}

fn get(b: &mut Backend, target: &str) -> Reply {
    b.answer(&Request::get(target), NOW)
}

fn send(b: &mut Backend, method: &str, target: &str, body: &str) -> Reply {
    b.answer(&Request::json(method, target, body.to_owned()), NOW)
}

fn post(b: &mut Backend, body: &str) -> Reply {
    send(b, "POST", &format!("/api/accounts/1/values/?b={MY}"), body)
}

fn put(b: &mut Backend, body: &str) -> Reply {
    send(b, "PUT", &format!("/api/accounts/1/values/?b={MY}"), body)
}

fn post_entity(b: &mut Backend, body: &str) -> Reply {
    send(b, "POST", &format!("/api/accounts/1/entities/?b={PING}"), body)
}

fn content_type(reply: &Reply) -> Option<&str> {
    reply.headers.iter().find(|(name, _)| *name == "content-type").map(|(_, value)| value.as_str())
}

#[track_caller]
fn is_refusal(reply: &Reply, status: u16, text: &str) {
    assert_eq!((reply.status, reply.text().as_str(), content_type(reply)), (status, text, None));
    assert!(!reply.hang_up);
}

#[track_caller]
fn is_detail(reply: &Reply, status: u16, detail: &str) {
    assert_eq!((reply.status, reply.text()), (status, format!("{{\"detail\":\"{detail}\"}}")));
    assert_eq!(content_type(reply), Some("application/json"));
    assert!(!reply.hang_up);
}

#[track_caller]
fn is_internal_error(reply: &Reply) {
    assert_eq!((reply.status, reply.text().as_str()), (500, "Internal Server Error"));
    assert_eq!(content_type(reply), Some("text/plain; charset=utf-8"));
    assert!(reply.hang_up);
}

#[track_caller]
fn is_stored(reply: &Reply) {
    assert_eq!(
        (reply.status, &reply.body, content_type(reply)),
        (204, &ReplyBody::None, None),
        "{}",
        reply.text()
    );
}

#[track_caller]
fn is_invalid(reply: &Reply, why: &str) {
    is_refusal(reply, 400, &format!("Input validation failed: {why}"));
}

// Reading

#[test]
fn lists_and_items_are_written_alike_in_wire_order() {
    let mut b = backend();
    let device = "{\"id\":31,\"name\":\"Device\",\"entity_type\":\"device\",\"parent\":null,\"details\":{\"ipv4\":\"127.0.0.1\"},\
                  \"protocols\":{\"my\":{\"credential\":11,\"sensors\":[{\"sensor\":21,\"interval\":null},{\"sensor\":22,\"interval\":15}],\"bot\":72}}}";
    assert_eq!(get(&mut b, &format!("/api/accounts/1/entities/31?b={MY}")).text(), device);
    let list = get(&mut b, &format!("/api/accounts/1/entities/?b={MY}"));
    assert_eq!(list.status, 200);
    assert_eq!(content_type(&list), Some("application/json"));
    assert!(
        list.text().starts_with("{\"list\":[{\"id\":30,") && list.text().ends_with(&format!(",{device}]}}"))
    );
    let credential =
        "{\"id\":11,\"name\":\"My credential\",\"protocol\":\"my\",\"details\":{\"user\":\"uć\"}}";
    assert_eq!(get(&mut b, &format!("/api/accounts/1/credentials/11/?b={MY}")).text(), credential);
    assert!(get(&mut b, &format!("/api/accounts/1/credentials?b={MY}")).text().contains(credential));
    let sensor =
        "{\"id\":22,\"name\":\"No interval\",\"protocol\":\"my\",\"default_interval\":null,\"details\":{}}";
    assert_eq!(get(&mut b, &format!("/api/accounts/1/sensors/22/?b={MY}")).text(), sensor);
    assert!(get(&mut b, &format!("/api/accounts/1/sensors/?b={MY}")).text().contains(sensor));
}

#[test]
fn a_raw_list_is_served_byte_for_byte() {
    let mut b = backend();
    b.set_raw_list(1, ListKind::Sensors, Some(" {\"list\" : [ ]}\n")).unwrap();
    assert_eq!(get(&mut b, &format!("/api/accounts/1/sensors/?b={MY}")).text(), " {\"list\" : [ ]}\n");
    b.set_raw_list(1, ListKind::Sensors, None::<&str>).unwrap();
    assert!(get(&mut b, &format!("/api/accounts/1/sensors/?b={MY}")).text().contains("Every minute"));
}

#[test]
fn the_profile_tells_systemwide_bots_from_those_of_an_account() {
    let mut b = backend();
    let profile = get(&mut b, &format!("/api/profile/?b={MY}"));
    assert_eq!(
        profile.text(),
        "{\"user_id\":72,\"user_type\":\"bot\",\"record\":{\"id\":72,\"name\":\"My bot\",\"protocol\":\"my\",\"tied_to_account\":1,\
         \"config\":null,\"insert_time\":0,\"last_login\":1795370400}}"
    );
    assert!(get(&mut b, &format!("/api/profile?b={PING}")).text().contains("\"tied_to_account\":null"));
}

#[test]
fn the_last_login_is_noted_at_most_every_ten_seconds() {
    let mut b = backend();
    let profile = Request::get(&format!("/api/profile/?b={MY}"));
    let mut last = |now_s: i64| {
        let text = b.answer(&profile, now_s * 1_000_000).text();
        text.rsplit(':').next().unwrap().trim_end_matches('}').parse::<i64>().unwrap()
    };
    assert_eq!([last(100), last(109), last(110), last(119)], [100, 100, 110, 110]);
}

#[test]
fn permissions_are_listed_by_resource() {
    let mut b = backend();
    let text = get(&mut b, &format!("/api/profile/permissions?b={MY}")).text();
    let places: Vec<usize> =
        ["credentials", "entities", "sensors", "values"].iter().map(|r| text.find(r).unwrap()).collect();
    assert!(places.is_sorted(), "{text}");
    assert!(
        text.ends_with("\"resource_prefix\":\"accounts/1/values\",\"methods\":[\"POST\",\"PUT\"]}]}"),
        "{text}"
    );
    let all = get(&mut b, &format!("/api/profile/permissions/?b={PING}")).text();
    assert!(all.ends_with("\"resource_prefix\":\"accounts\",\"methods\":null}]}"), "{all}");
}

#[test]
fn accounts_come_by_name_and_only_if_a_permission_names_them() {
    let mut b = backend();
    let both = "{\"list\":[{\"id\":2,\"name\":\"Drugi račun — \\\"B\\\" \\\\ 📈\"},{\"id\":1,\"name\":\"Main account\"}]}";
    assert_eq!(get(&mut b, &format!("/api/accounts/?b={PING}")).text(), both);
    let main = "{\"list\":[{\"id\":1,\"name\":\"Main account\"}]}";
    assert_eq!(get(&mut b, &format!("/api/accounts/?b={MY}")).text(), main);
    assert_eq!(get(&mut b, &format!("/api/accounts/?b={BARE}")).text(), "{\"list\":[]}");
    let post_only = Bot::of_account(74, "Post only", 1, None)
        .token(token("21926b31-f529-4d68-9ab5-d3a693e57241"))
        .permissions([Permission::new("accounts/1/values", Some(&["POST"]))]);
    b.set_bot(post_only).unwrap();
    assert_eq!(get(&mut b, "/api/accounts/?b=21926b31-f529-4d68-9ab5-d3a693e57241").text(), main);
}

#[test]
fn the_status_page_needs_no_login_and_no_slash() {
    let mut b = backend();
    let status = get(&mut b, "/api/status/info");
    assert_eq!(status.status, 200);
    let json: Json = status.text().parse().unwrap();
    assert_eq!(json.get("db_migration_needed"), Some(&Json::Bool(false)));
    assert_eq!(json.get("user_exists"), Some(&Json::Bool(true)));
    assert!(status.headers.contains(&("access-control-allow-origin", "*".to_owned())));
    is_refusal(&get(&mut b, "/api/status/info/"), 401, "Access denied");
}

#[test]
fn unknown_query_parameters_are_ignored() {
    let mut b = backend();
    let plain = get(&mut b, &format!("/api/accounts/1/entities/?b={MY}"));
    let filtered =
        get(&mut b, &format!("/api/accounts/1/entities/?parent=5&entity_type=interface&limit=1&b={MY}"));
    assert_eq!(plain, filtered);
}

// Login and permissions

#[test]
fn a_token_counts_only_as_the_last_b_of_the_query() {
    let mut b = backend();
    let upper = MY.to_ascii_uppercase();
    for query in
        [format!("b={MY}"), format!("b={upper}"), format!("b=bad&b={MY}"), format!("b={MY}&x=1&y[]=2&z")]
    {
        assert_eq!(get(&mut b, &format!("/api/profile/?{query}")).status, 200, "{query}");
    }
    for query in [
        "",
        "b=",
        "b=bad",
        "b=11111111-2222-4333-8444-555555555555",
        &format!("b={MY}&b=bad"),
        &format!("b={MY}%20"),
    ] {
        is_refusal(&get(&mut b, &format!("/api/profile/?{query}")), 401, "Access denied");
    }
}

#[test]
fn a_line_feed_after_the_token_is_a_500_that_keeps_the_connection() {
    let mut b = backend();
    is_refusal(&get(&mut b, &format!("/api/profile/?b={MY}%0A")), 500, "Could not validate access");
}

#[test]
fn any_authorization_header_hides_the_token() {
    let mut b = backend();
    for (header, status) in [
        ("Basic dTpw", 401),
        (&*format!("Token {MY}"), 401),
        (&*format!("Bearer {MY}"), 401),
        (&*format!("Bearer 1:{MY}"), 401),
        (&*format!("Bearer x:{MY}"), 500),
    ] {
        let mut request = Request::get(&format!("/api/profile/?b={MY}"));
        request.authorization = Some(header.as_bytes().to_vec());
        let reply = b.answer(&request, NOW);
        let text = if status == 401 { "Access denied" } else { "Could not validate access" };
        is_refusal(&reply, status, text);
    }
}

#[test]
fn what_a_bot_may_not_see_is_403_whether_or_not_it_is_there() {
    let mut b = backend();
    for path in [
        "accounts/1",
        "accounts/1/",
        "accounts/2/entities/",
        "accounts/999/entities/",
        "accounts/1/bots/",
        "accounts/1/values/a",
        "nothing/",
        "/profile/",
    ] {
        let reply = get(&mut b, &format!("/api/{path}?b={MY}"));
        is_refusal(&reply, 403, "Access to resource denied, insufficient permissions");
    }
    is_refusal(
        &get(&mut b, &format!("/?b={PING}")),
        403,
        "Access to resource denied, insufficient permissions",
    );
    let mut absolute = Request::get(&format!("/api/profile/?b={MY}"));
    absolute.absolute_form = true;
    assert_eq!(b.answer(&absolute, NOW).status, 403);
    // Nor may it write outside its four permissions.
    assert_eq!(send(&mut b, "POST", &format!("/api/accounts/1/entities/?b={MY}"), "{}").status, 403);
    assert_eq!(send(&mut b, "DELETE", &format!("/api/accounts/1/entities/31?b={MY}"), "").status, 403);
    assert_eq!(send(&mut b, "POST", &format!("/api/profile/?b={PING}"), "{}").status, 403);
}

#[test]
fn a_permission_for_an_account_covers_no_account_whose_id_begins_alike() {
    let mut b = backend();
    b.set_account(Account { id: 12, name: "Twelve".into() }).unwrap();
    let everything = [Permission::new("accounts/1", None)];
    b.set_bot(Bot::systemwide(74, "Of one", "my").token(token(ONE)).permissions(everything)).unwrap();
    for resource in ["entities", "credentials", "sensors"] {
        let own = get(&mut b, &format!("/api/accounts/1/{resource}/?b={ONE}"));
        assert_eq!(own.status, 200, "{resource}");
        let other = get(&mut b, &format!("/api/accounts/12/{resource}/?b={ONE}"));
        is_refusal(&other, 403, "Access to resource denied, insufficient permissions");
    }
    for (method, values) in [("PUT", r#"[{"p":"a.b","v":1,"t":1}]"#), ("POST", r#"[{"p":"a.b","v":1}]"#)] {
        let own = send(&mut b, method, &format!("/api/accounts/1/values/?b={ONE}"), values);
        assert_eq!(own.status, 204, "{}", own.text());
        let other = send(&mut b, method, &format!("/api/accounts/12/values/?b={ONE}"), values);
        is_refusal(&other, 403, "Access to resource denied, insufficient permissions");
    }
    assert_eq!(b.paths(12), Vec::<String>::new());
    assert_eq!(
        get(&mut b, &format!("/api/accounts/?b={ONE}")).text(),
        r#"{"list":[{"id":1,"name":"Main account"}]}"#
    );
}

#[test]
fn a_systemwide_bot_sees_missing_things_as_missing() {
    let mut b = backend();
    assert_eq!(
        get(&mut b, &format!("/api/accounts/1/?b={PING}")).text(),
        "{\"id\":1,\"name\":\"Main account\"}"
    );
    assert_eq!(get(&mut b, &format!("/api/accounts/999/entities/?b={PING}")).text(), "{\"list\":[]}");
    is_detail(&get(&mut b, &format!("/api/accounts/1/nothing/?b={PING}")), 404, "Not Found");
    is_detail(&get(&mut b, &format!("/api/accounts/2/entities/31?b={PING}")), 404, "No such entity");
    is_detail(&get(&mut b, &format!("/api/accounts/1/entities/2147483648?b={PING}")), 404, "No such entity");
    is_detail(&get(&mut b, &format!("/api/accounts/1/entities/-1?b={PING}")), 404, "No such entity");
    is_detail(&get(&mut b, &format!("/api/accounts/1/credentials/1?b={PING}")), 404, "No such credential");
    is_detail(&get(&mut b, &format!("/api/accounts/1/sensors/1?b={PING}")), 404, "No such sensor");
}

#[test]
fn ids_that_are_no_numbers_are_422() {
    let mut b = backend();
    let reply = get(&mut b, &format!("/api/accounts/abc/entities/?b={PING}"));
    assert_eq!(reply.status, 422);
    assert_eq!(
        reply.text(),
        "{\"detail\":[{\"loc\":[\"path\",\"account_id\"],\"msg\":\"value is not a valid integer\",\"type\":\"type_error.integer\"}]}"
    );
    assert!(get(&mut b, &format!("/api/accounts/1/entities/x?b={PING}")).text().contains("\"entity_id\""));
    assert_eq!(send(&mut b, "POST", &format!("/api/accounts/x/values/?b={PING}"), "[]").status, 422);
}

#[test]
fn methods_that_a_resource_lacks_are_405_and_odd_ones_500() {
    let mut b = backend();
    for (method, path) in
        [("HEAD", "entities/31"), ("get", "entities/31"), ("DELETE", "values/"), ("DELETE", "entities/")]
    {
        let bot = if method == "DELETE" { PING } else { MY };
        let reply = send(&mut b, method, &format!("/api/accounts/1/{path}?b={bot}"), "");
        is_detail(&reply, 405, "Method Not Allowed");
    }
    for method in ["PATCH", "OPTIONS"] {
        let reply = send(&mut b, method, &format!("/api/accounts/1/entities/31?b={MY}"), "");
        is_refusal(&reply, 500, "Could not validate access");
    }
}

#[test]
fn two_slashes_at_the_end_are_redirected_with_the_token_in_the_address() {
    let mut b = backend();
    let mut request = Request::get(&format!("/api/profile//?b={MY}"));
    request.host = Some("127.0.0.1:8300".into());
    let reply = b.answer(&request, NOW);
    assert_eq!((reply.status, &reply.body), (307, &ReplyBody::EmptyChunked));
    assert_eq!(reply.headers, [("location", format!("http://127.0.0.1:8300/api/profile?b={MY}"))]);
}

#[test]
fn logs_name_the_bot_and_never_the_token() {
    let b = backend();
    let masked = |target: &str| b.mask(target);
    assert_eq!(
        masked(&format!("/api/profile/?b={MY}")),
        ("/api/profile/?b=<my-bot>".into(), Some("my-bot".into()))
    );
    assert_eq!(masked(&format!("/x?a=1&%62={MY}%0A&c")).0, "/x?a=1&%62=<my-bot>&c");
    assert_eq!(masked("/x?b=secret"), ("/x?b=<unknown>".into(), Some("unknown".into())));
    assert_eq!(
        masked(&format!("/api/{}/{PING}?c={MY}", MY.to_uppercase())).0,
        "/api/<my-bot>/<ping>?c=<my-bot>"
    );
    assert_eq!(masked("/api/status/info"), ("/api/status/info".into(), None));
}

// Values

#[test]
fn the_values_of_a_post_share_the_time_of_the_request() {
    let mut b = backend();
    is_stored(&post(
        &mut b,
        r#"[{"p":"v.a","v":1},{"p":"v.b","v":-2.25,"x":{"y":2}},{"p":"v.c.d-e_F9","v":1e-09}]"#,
    ));
    let values = b.values(1).unwrap();
    assert_eq!(
        values.iter().map(|v| (v.path.as_str(), v.value)).collect::<Vec<_>>(),
        [("v.a", 1.0), ("v.b", -2.25), ("v.c.d-e_F9", 1e-9)]
    );
    assert!(values.iter().all(|v| v.time_us == NOW && v.account == 1));
}

#[test]
fn the_answer_tells_the_server_what_was_stored() {
    let mut b = backend();
    let reply = post(&mut b, r#"[{"p":"v.a","v":"12.5"}]"#);
    assert_eq!(reply.stored, b.values(1).unwrap());
    assert_eq!(b.value_count(), 1);
}

#[test]
fn paths_follow_the_rule() {
    let mut b = backend();
    for path in ["v", "0", "-", "_", "v.10%2e0%2e0%2e1", "v.fe80%3a%3a1", "system", "systems.x", "v.A-b_9"] {
        is_stored(&post(&mut b, &format!("[{{\"p\":\"{path}\",\"v\":1}}]")));
    }
    for path in
        ["v.a b", "v.a/b", "v.ć", "v..a", ".v.a", "v.a.", "", "v.a:b", "v.10%2E0", "v.a%20b", "v.*", "%2"]
    {
        let reply = post(&mut b, &format!("[{{\"p\":\"{path}\",\"v\":1}}]"));
        is_invalid(&reply, &format!("Invalid PathInputValue format: {path}"));
    }
    let reply = post(&mut b, r#"[{"p":"system.x","v":1}]"#);
    is_invalid(&reply, "Invalid path - should not start with 'system.'!");
    for path in ["5", "null", "[\"a\"]"] {
        is_internal_error(&post(&mut b, &format!("[{{\"p\":{path},\"v\":1}}]")));
    }
}

#[test]
fn one_line_feed_after_a_path_is_cut_off() {
    let mut b = backend();
    is_stored(&post(&mut b, r#"[{"p":"v.nl\n","v":1}]"#));
    assert_eq!(b.values_of(1, "v.nl").unwrap(), [(NOW, 1.0)]);
    assert_eq!(post(&mut b, r#"[{"p":"v.nl\n\n","v":1}]"#).status, 400);
}

#[test]
fn long_paths_pass_if_they_can_be_compressed() {
    let mut b = backend();
    let mut state = 7_u32;
    let mut random = |n: usize| -> String {
        let letters = b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_";
        (0..n)
            .map(|_| {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                char::from(letters[(state >> 26) as usize])
            })
            .collect()
    };
    is_stored(&post(&mut b, &format!("[{{\"p\":\"{}\",\"v\":1}}]", "a".repeat(9000))));
    is_stored(&post(&mut b, &format!("[{{\"p\":\"{}\",\"v\":1}}]", random(2600))));
    is_internal_error(&post(&mut b, &format!("[{{\"p\":\"{}\",\"v\":1}}]", random(3000))));
}

#[test]
fn one_bad_path_refuses_the_request_but_leaves_path_rows() {
    let mut b = backend();
    let reply = post(&mut b, r#"[{"p":"mix.ok1","v":1},{"p":"mix.bad path","v":2},{"p":"mix.ok2","v":3}]"#);
    is_invalid(&reply, "Invalid PathInputValue format: mix.bad path");
    assert_eq!(b.paths(1), ["mix.bad path", "mix.ok1"]);
    assert_eq!(b.value_count(), 0);
}

fn numbered(count: usize, value: impl Fn(usize) -> String) -> String {
    let items: Vec<String> = (0..count).map(|i| format!("{{\"p\":\"n{i}\",\"v\":{}}}", value(i))).collect();
    format!("[{}]", items.join(","))
}

#[test]
fn a_bad_value_stops_the_request_after_earlier_pages_were_stored() {
    let mut b = backend();
    let body = numbered(250, |i| if i == 240 { "\"bad\"".into() } else { i.to_string() });
    let reply = post(&mut b, &body);
    is_invalid(&reply, "Invalid MeasuredValue format: bad");
    assert_eq!(b.value_count(), 200);
    assert_eq!(reply.stored.len(), 200);
    assert_eq!(b.values_of(1, "n199").unwrap(), [(NOW, 199.0)]);
    assert_eq!(b.values_of(1, "n200").unwrap(), []);
}

#[test]
fn the_same_path_twice_in_one_page_stores_nothing_of_that_page() {
    let mut b = backend();
    is_internal_error(&post(&mut b, r#"[{"p":"dup.x","v":1},{"p":"dup.y","v":2},{"p":"dup.x","v":3}]"#));
    assert_eq!(b.value_count(), 0);
}

#[test]
fn the_same_path_in_two_pages_keeps_the_later_value() {
    let mut b = backend();
    let mut body = numbered(149, |i| i.to_string());
    body.truncate(body.len() - 1);
    body.push_str(",{\"p\":\"n3\",\"v\":-1}]");
    is_stored(&post(&mut b, &body));
    assert_eq!(b.values_of(1, "n3").unwrap(), [(NOW, -1.0)]);
    assert_eq!(b.value_count(), 149);
}

#[test]
fn numbers_and_numeric_texts_are_stored_as_the_backend_reads_them() {
    let mut b = backend();
    for (i, (value, number)) in [
        ("5", 5.0),
        ("-5", -5.0),
        ("1.5e-7", 1.5e-7),
        ("3.14159265358979323846264338327950288", core::f64::consts::PI),
        ("123456789012345678901234567890", 1.234_567_890_123_456_8e29),
        ("9007199254740993", 9_007_199_254_740_992.0),
        ("1e308", 1e308),
        ("5e-324", 5e-324),
        ("\"12.5\"", 12.5),
        ("\"1e3\"", 1000.0),
        ("\" 12 \"", 12.0),
        ("\"+.5\"", 0.5),
    ]
    .into_iter()
    .enumerate()
    {
        is_stored(&post(&mut b, &format!("[{{\"p\":\"x{i}\",\"v\":{value}}}]")));
        assert_eq!(b.values_of(1, &format!("x{i}")).unwrap(), [(NOW, number)], "{value}");
    }
}

#[test]
fn negative_zero_is_read_as_zero() {
    let mut b = backend();
    is_stored(&post(&mut b, r#"[{"p":"z","v":-0.0}]"#));
    assert!(b.values_of(1, "z").unwrap()[0].1.is_sign_positive());
    let read = get(&mut b, &format!("/api/accounts/1/values/z?b={PING}&t0=10&t1=9999999999"));
    assert_eq!(
        read.text(),
        "{\"paths\":{\"z\":{\"next_data_point\":null,\"data\":[{\"t\":1795370400.123456,\"v\":0.0}]}}}"
    );
}

#[test]
fn what_is_no_number_is_400_or_500() {
    let mut b = backend();
    for value in ["true", "false", "\"1_000\"", "\"-nan\""] {
        is_internal_error(&post(&mut b, &format!("[{{\"p\":\"x\",\"v\":{value}}}]")));
    }
    let over = "1".repeat(400);
    for (value, shown) in [
        ("\"0x10\"", "0x10"),
        ("\"1,5\"", "1,5"),
        ("\"\"", ""),
        ("\"abc\"", "abc"),
        ("\"1__0\"", "1__0"),
        ("null", "None"),
        ("[1]", "[1]"),
        ("{}", "{}"),
        (&over, &over),
    ] {
        let reply = post(&mut b, &format!("[{{\"p\":\"x\",\"v\":{value}}}]"));
        is_invalid(&reply, &format!("Invalid MeasuredValue format: {shown}"));
    }
    assert_eq!(b.value_count(), 0);
}

#[test]
fn nan_and_infinities_are_accepted_and_poison_the_path() {
    let mut b = backend();
    for (i, value) in ["NaN", "Infinity", "-Infinity", "1e309", "\"NaN\"", "\"inf\"", "\"-Infinity\""]
        .into_iter()
        .enumerate()
    {
        is_stored(&post(&mut b, &format!("[{{\"p\":\"x{i}\",\"v\":{value}}}]")));
        is_internal_error(&get(&mut b, &format!("/api/accounts/1/values/x{i}?b={PING}")));
        assert!(!b.values_of(1, &format!("x{i}")).unwrap()[0].1.is_finite(), "{value}");
        let elsewhere = get(&mut b, &format!("/api/accounts/1/values/x{i}?b={PING}&t0=1&t1=2"));
        assert_eq!(elsewhere.status, 200);
    }
}

#[test]
fn a_time_in_a_post_is_refused_unless_it_is_falsy() {
    let mut b = backend();
    for t in ["1700000000", "\"0\"", "true", "[0]"] {
        let reply = post(&mut b, &format!("[{{\"p\":\"v\",\"v\":1}},{{\"p\":\"w\",\"v\":1,\"t\":{t}}}]"));
        is_detail(&reply, 400, "Parameter 't' shouldn't be specified with POST");
    }
    assert_eq!(b.value_count(), 0);
    for t in ["0", "null", "false", "\"\""] {
        is_stored(&post(&mut b, &format!("[{{\"p\":\"v\",\"v\":1,\"t\":{t}}}]")));
    }
}

#[test]
fn empty_and_broken_bodies_are_told_apart_by_method() {
    let mut b = backend();
    is_detail(&post(&mut b, "[]"), 400, "Missing data");
    is_detail(&post(&mut b, "null"), 400, "Missing data");
    is_stored(&put(&mut b, "[]"));
    for body in [
        "",
        "[{",
        "{\"v.one\":1}",
        "{\"p\":\"v\",\"v\":1}",
        "p=a&v=1",
        "[{\"p\":\"v\"}]",
        "[{\"v\":1}]",
        "[1]",
        "\"x\"",
        "7",
    ] {
        is_internal_error(&post(&mut b, body));
        is_internal_error(&put(&mut b, body));
    }
    assert_eq!(b.value_count(), 0);
}

#[test]
fn path_and_value_may_be_in_the_query_of_a_post_with_an_empty_body() {
    let mut b = backend();
    let target = format!("/api/accounts/1/values/?p=v.query&v=12.5&b={MY}");
    is_stored(&send(&mut b, "POST", &target, "[]"));
    is_stored(&send(&mut b, "POST", &target, "null"));
    is_internal_error(&send(&mut b, "POST", &target, ""));
    assert_eq!(b.values_of(1, "v.query").unwrap(), [(NOW, 12.5)]);
    is_stored(&send(&mut b, "POST", &format!("{target}&t=5"), r#"[{"p":"v.one","v":9}]"#));
    assert_eq!(send(&mut b, "POST", &format!("{target}&t=5"), "[]").status, 400);
}

#[test]
fn a_hint_follows_refusals_unless_the_content_type_is_bare_json() {
    let mut b = backend();
    for content_type in [None, Some("text/plain"), Some("application/json; charset=utf-8")] {
        let mut request =
            Request::json("POST", &format!("/api/accounts/1/values/?b={MY}"), r#"[{"p":"v","v":"x"}]"#);
        request.content_type = content_type.map(str::to_owned);
        let reply = b.answer(&request, NOW);
        is_invalid(
            &reply,
            "Invalid MeasuredValue format: x - maybe Content-Type header was not set to application/json?",
        );
        request.body = r#"[{"p":"v","v":1}]"#.into();
        assert_eq!(b.answer(&request, NOW).status, 204);
    }
}

#[test]
fn bodies_with_a_byte_order_mark_or_in_utf_16_pass() {
    let mut b = backend();
    let target = format!("/api/accounts/1/values/?b={MY}");
    is_stored(&send(&mut b, "POST", &target, "\u{feff}[{\"p\":\"bom\",\"v\":1}]"));
    let utf16: Vec<u8> =
        "\u{feff}[{\"p\":\"utf16\",\"v\":1}]".encode_utf16().flat_map(u16::to_le_bytes).collect();
    is_stored(&b.answer(&Request::json("POST", &target, utf16), NOW));
    assert_eq!(b.paths(1), ["bom", "utf16"]);
}

#[test]
fn values_for_an_unknown_account_are_400() {
    let mut b = backend();
    let target = format!("/api/accounts/999/values/?b={PING}");
    is_detail(&send(&mut b, "POST", &target, r#"[{"p":"a","v":1}]"#), 400, "Invalid input format");
}

#[test]
fn a_put_overwrites_to_the_microsecond() {
    let mut b = backend();
    is_stored(&put(&mut b, r#"[{"p":"a","v":1,"t":1700000000}]"#));
    is_stored(&put(&mut b, r#"[{"p":"a","v":2,"t":1700000000.0},{"p":"a","v":3,"t":"1700000000.000001"}]"#));
    assert_eq!(b.values_of(1, "a").unwrap(), [(1_700_000_000_000_000, 2.0), (1_700_000_000_000_001, 3.0)]);
    is_internal_error(&put(&mut b, r#"[{"p":"a","v":3,"t":5},{"p":"a","v":4,"t":5.0}]"#));
    assert_eq!(b.value_count(), 2);
}

#[test]
fn times_of_a_put_are_rounded_not_cut() {
    let mut b = backend();
    for (t, time_us) in [
        ("1700000003.1234567", 1_700_000_003_123_457),
        ("\"1700000005.123456\"", 1_700_000_005_123_456),
        ("\"1700000005.5\"", 1_700_000_005_500_000),
        ("0", 0),
        ("-1.5", -1_500_000),
        ("true", 1_000_000),
        ("4102444800", 4_102_444_800_000_000),
    ] {
        let reply = put(&mut b, &format!("[{{\"p\":\"a\",\"v\":1,\"t\":{t}}}]"));
        is_stored(&reply);
        assert_eq!(reply.stored[0].time_us, time_us, "{t}");
    }
}

#[test]
fn times_that_are_none_are_refused() {
    let mut b = backend();
    for (t, shown) in [
        ("null", "None"),
        ("\"yesterday\"", "yesterday"),
        ("\"1700000005.1234567\"", "1700000005.1234567"),
        ("[1]", "[1]"),
    ] {
        let reply = put(&mut b, &format!("[{{\"p\":\"a\",\"v\":1,\"t\":{t}}}]"));
        is_invalid(&reply, &format!("Invalid Timestamp format: {shown}"));
    }
    is_internal_error(&put(&mut b, r#"[{"p":"a","v":1}]"#));
    // Milliseconds are beyond the year 9999.
    is_internal_error(&put(&mut b, r#"[{"p":"a","v":1,"t":1700000000000}]"#));
    is_internal_error(&put(&mut b, r#"[{"p":"a","v":1,"t":NaN}]"#));
    assert_eq!(b.value_count(), 0);
}

#[test]
fn reading_gives_a_range_and_500_for_an_unknown_path() {
    let mut b = backend();
    is_stored(&put(&mut b, r#"[{"p":"a","v":1,"t":-1.5},{"p":"a","v":2.5,"t":10},{"p":"a","v":3,"t":20}]"#));
    let read =
        |b: &mut Backend, query: &str| get(b, &format!("/api/accounts/1/values/a?b={PING}{query}")).text();
    assert_eq!(
        read(&mut b, ""),
        "{\"paths\":{\"a\":{\"next_data_point\":null,\"data\":[{\"t\":-1.5,\"v\":1.0},{\"t\":10.0,\"v\":2.5},{\"t\":20.0,\"v\":3.0}]}}}"
    );
    assert_eq!(
        read(&mut b, "&t0=10&t1=15"),
        "{\"paths\":{\"a\":{\"next_data_point\":null,\"data\":[{\"t\":10.0,\"v\":2.5}]}}}"
    );
    is_internal_error(&get(&mut b, &format!("/api/accounts/1/values/no.such?b={PING}")));
}

// Entities that bots make

fn with_sensors(sensors: &str) -> String {
    format!(
        "{{\"name\":\"new\",\"entity_type\":\"device\",\"details\":{{}},\
         \"protocols\":{{\"ping\":{{\"credential\":12,\"bot\":71,\"sensors\":{sensors}}}}}}}"
    )
}

fn newest(b: &Backend) -> Entity {
    let known = [30, 31];
    b.entities(1).into_iter().find(|e| !known.contains(&e.id)).unwrap()
}

#[test]
fn a_bot_with_permission_makes_changes_and_removes_an_interface() {
    let mut b = backend();
    let made = post_entity(
        &mut b,
        r#"{"name":"wlan0","entity_type":"interface","parent":31,"details":{"snmp_index":"7"}}"#,
    );
    assert_eq!(made.status, 201);
    let id = newest(&b).id;
    assert_eq!(made.text(), format!("{{\"id\":{id}}}"));
    assert!(id > 0);
    let target = format!("/api/accounts/1/entities/{id}/?b={PING}");
    let body = r#"{"name":"wlan1","entity_type":"interface","parent":30,"details":{"snmp_index":"8"}}"#;
    is_stored(&send(&mut b, "PUT", &target, body));
    assert_eq!(
        get(&mut b, &target).text(),
        format!(
            "{{\"id\":{id},\"name\":\"wlan1\",\"entity_type\":\"interface\",\"parent\":31,\"details\":{{\"snmp_index\":\"8\"}},\"protocols\":{{}}}}"
        )
    );
    is_stored(&send(&mut b, "DELETE", &target, ""));
    is_detail(&send(&mut b, "DELETE", &target, ""), 404, "No such entity");
    is_detail(&send(&mut b, "PUT", &target, body), 404, "No such entity");
}

#[test]
fn a_put_without_protocols_removes_them_all() {
    let mut b = backend();
    let body = r#"{"name":"Device","entity_type":"device","details":{}}"#;
    is_stored(&send(&mut b, "PUT", &format!("/api/accounts/1/entities/31?b={PING}"), body));
    assert!(b.entity(1, 31).unwrap().protocols.is_empty());
}

#[test]
fn ids_may_be_texts_and_intervals_are_rounded() {
    let mut b = backend();
    for (interval, stored) in [("2.5", 3), ("0.4", 0), ("-2.5", -3), ("0", 0), ("2147483647", i32::MAX)] {
        let body = with_sensors(&format!("[{{\"sensor\":\"23\",\"interval\":{interval}}}]"))
            .replace("\"bot\":71", "\"bot\":\"71\"");
        assert_eq!(post_entity(&mut b, &body).status, 201);
        let entity = newest(&b);
        assert_eq!(entity.protocols[0].1.sensors[0].interval, Some(stored), "{interval}");
        assert_eq!(entity.protocols[0].1.bot, Some(71));
        b.remove_entity(1, entity.id).unwrap();
    }
}

#[test]
fn a_failed_post_leaves_the_entity_without_all_its_sensors() {
    let mut b = backend();
    for (sensors, left) in [
        (r#"[{"sensor":23}]"#, 0),
        (r#"[{"sensor":23,"interval":2147483648}]"#, 0),
        (r#"[{"sensor":23,"interval":1},{"sensor":23,"interval":2}]"#, 1),
    ] {
        is_internal_error(&post_entity(&mut b, &with_sensors(sensors)));
        let entity = newest(&b);
        assert_eq!(entity.protocols[0].1.sensors.len(), left, "{sensors}");
        assert_eq!(entity.protocols[0].1.bot, Some(71));
        b.remove_entity(1, entity.id).unwrap();
    }
}

#[test]
fn a_post_that_the_schema_refuses_leaves_nothing() {
    let mut b = backend();
    let protocol = |inner: &str| {
        format!(
            "{{\"name\":\"x\",\"entity_type\":\"device\",\"details\":{{}},\"protocols\":{{\"ping\":{{{inner}}}}}}}"
        )
    };
    for (body, why) in [
        (protocol(r#""credential":12,"sensors":[]"#), "'bot' is a required property"),
        (protocol(r#""credential":12,"bot":null,"sensors":[]"#), "None is not of type 'string', 'number'"),
        (protocol(r#""credential":12,"bot":72,"sensors":[]"#), "Invalid bot for this protocol: 72"),
        (
            protocol(r#""credential":11,"bot":71,"sensors":[]"#),
            "Invalid credential for this account/protocol combination: 11",
        ),
        (
            with_sensors(r#"[{"sensor":21,"interval":1}]"#),
            "Invalid sensor for this account/protocol combination: 21",
        ),
        (with_sensors(r#"[{"sensor":23,"interval":"60"}]"#), "'60' is not of type 'number', 'null'"),
        (
            r#"{"name":"x","entity_type":"device","details":{},"foo":1}"#.to_owned(),
            "Additional properties are not allowed ('foo' was unexpected)",
        ),
    ] {
        is_invalid(&post_entity(&mut b, &body), why);
    }
    for body in [
        "",
        r#"{"name":"x","entity_type":"interface","details":{},"parent":12345}"#,
        r#"{"name":"\ud800","entity_type":"device","details":{}}"#,
        r#"{"name":"x","entity_type":"device","details":{"x":NaN}}"#,
    ] {
        is_internal_error(&post_entity(&mut b, body));
    }
    assert_eq!(b.entities(1).len(), 2);
}

#[test]
fn a_parent_may_be_in_another_account() {
    let mut b = backend();
    let target = format!("/api/accounts/2/entities/?b={PING}");
    let body = r#"{"name":"x","entity_type":"interface","details":{},"parent":31}"#;
    assert_eq!(send(&mut b, "POST", &target, body).status, 201);
    assert!(get(&mut b, &target).text().contains("\"parent\":31"));
}

#[test]
fn details_are_kept_as_python_rewrites_them() {
    let mut b = backend();
    let details = "{\"\":\"empty key\",\"nul\":\"a\\u0000b\",\"n\":1.50,\"big\":18446744073709551616,\"neg0\":-0.0,\"exp\":1e300,\
                   \"deep\":[[[]]],\"ć\":\"😀\u{2028}\u{7f}\"}";
    let body = format!("{{\"name\":\"x\",\"entity_type\":\"website\",\"details\":{details}}}");
    assert_eq!(post_entity(&mut b, &body).status, 201);
    let id = newest(&b).id;
    let text = get(&mut b, &format!("/api/accounts/1/entities/{id}?b={PING}")).text();
    let written = details.replace("1.50", "1.5").replace("1e300", "1e+300");
    assert!(text.contains(&written), "{text}");
}

#[test]
fn a_lone_surrogate_in_one_entity_makes_the_list_a_500() {
    let mut b = backend();
    let body = r#"{"name":"poison","entity_type":"device","details":{"x":"\ud800"}}"#;
    assert_eq!(post_entity(&mut b, body).status, 201);
    is_internal_error(&get(&mut b, &format!("/api/accounts/1/entities/?b={MY}")));
    assert_eq!(get(&mut b, &format!("/api/accounts/1/entities/31?b={MY}")).status, 200);
}

#[test]
fn ids_follow_from_the_seed() {
    let made = |seed| {
        let mut b = Backend::in_memory(seed).unwrap();
        b.set_account(Account { id: 0, name: "a".into() }).unwrap()
    };
    assert_eq!(made(1), made(1));
    assert_ne!(made(1), made(2));
    assert!(made(3) > 0);
}

// Changes while it runs

#[test]
fn a_deleted_bot_leaves_null_and_cannot_log_in() {
    let mut b = backend();
    b.remove_bot(72).unwrap();
    is_refusal(&get(&mut b, &format!("/api/profile/?b={MY}")), 401, "Access denied");
    let text = get(&mut b, &format!("/api/accounts/1/entities/31?b={PING}")).text();
    assert!(text.ends_with("],\"bot\":null}}}"), "{text}");
}

#[test]
fn a_deleted_credential_takes_its_protocol_entry_along() {
    let mut b = backend();
    b.remove_credential(1, 11).unwrap();
    assert!(b.entity(1, 31).unwrap().protocols.is_empty());
    assert_eq!(b.entity(1, 30).unwrap().protocols.len(), 1);
}

#[test]
fn a_deleted_sensor_leaves_the_list_shorter_and_then_empty() {
    let mut b = backend();
    b.remove_sensor(1, 21).unwrap();
    assert_eq!(b.entity(1, 31).unwrap().protocols[0].1.sensors.len(), 1);
    b.remove_sensor(1, 22).unwrap();
    let text = get(&mut b, &format!("/api/accounts/1/entities/31?b={PING}")).text();
    assert!(text.contains("\"sensors\":[],\"bot\":72"), "{text}");
}

#[test]
fn a_deleted_account_takes_its_bots_and_values_along() {
    let mut b = backend();
    is_stored(&post(&mut b, r#"[{"p":"a","v":1}]"#));
    b.remove_account(1).unwrap();
    assert_eq!(get(&mut b, &format!("/api/profile/?b={MY}")).status, 401);
    assert_eq!(b.value_count(), 0);
    assert!(!get(&mut b, &format!("/api/accounts/?b={PING}")).text().contains("Main"));
}

#[test]
fn contradictory_changes_are_refused() {
    let mut b = backend();
    let refused = |result: Result<i32, ChangeError>| result.unwrap_err().to_string();
    let device = || Entity::device(0, "x");
    assert_eq!(refused(b.set_entity(9, device())), "there is no account 9");
    assert_eq!(refused(b.set_entity(1, device().protocol("my", 99, 72, []))), "there is no credential 99");
    assert_eq!(
        refused(b.set_entity(1, device().protocol("my", 12, 72, []))),
        "credential 12 is not of protocol `my`"
    );
    assert_eq!(
        refused(b.set_entity(1, device().protocol("my", 11, 72, [(21, None), (21, None)]))),
        "sensor 21 stands twice in one protocol"
    );
    assert_eq!(
        refused(b.set_entity(1, device().protocol("my", 11, 71, []))),
        "bot 71 is not of protocol `my`"
    );
    assert_eq!(
        refused(b.set_entity(2, Entity::device(31, "x"))),
        "id 31 is not free for this entity, or not positive"
    );
    assert_eq!(
        refused(b.set_sensor(1, Sensor::new(0, "Every minute", "my", None))),
        "the name `Every minute` is taken in this account"
    );
    assert_eq!(
        refused(b.set_bot(Bot::systemwide(0, "x", "ping").token(token(PING)))),
        "the token belongs to another bot"
    );
    assert_eq!(b.entities(1).len(), 2);
}

#[test]
fn a_bot_that_is_replaced_keeps_its_token() {
    let mut b = backend();
    b.set_bot(Bot::of_account(72, "Renamed", 1, Some("my"))).unwrap();
    assert!(get(&mut b, &format!("/api/profile/?b={MY}")).text().contains("Renamed"));
    let id = b.set_bot(Bot::systemwide(0, "New", "snmp")).unwrap();
    let made = b.bot(id).unwrap().token.clone().unwrap();
    assert_eq!(get(&mut b, &format!("/api/profile/?b={}", made.reveal())).status, 200);
}
