//! Details of entities, credentials and sensors as they are stored, and what is told of those that can't be used.

use grafolean_bot_snmp::details::{
    AuthProtocol, FetchMethod, PrivProtocol, Settings, SnmpCredential, SnmpEntity, SnmpSensor,
};
use grafolean_bot_snmp::expression::Operand;
use grafolean_bot_snmp::template::Piece;
use grafolean_core::device::Host;
use grafolean_core::json::from_slice;
use serde_json::{Value, json};

fn read<T: for<'de> serde::Deserialize<'de>>(details: &Value) -> T {
    from_slice(details.to_string().as_bytes(), &mut [0; 2048]).unwrap_or_else(|e| panic!("{details}: {e}"))
}

// ---- entities ----

fn agent(details: Value) -> Result<(String, u16), &'static str> {
    let entity: SnmpEntity<64> = read(&details);
    entity.agent().map(|(host, port)| match host {
        Host::Ip(ip) => (ip.to_string(), port),
        Host::Name(name) => (name.to_string(), port),
    })
}

#[test]
fn an_agent_is_at_the_address_or_name_of_its_entity_and_at_port_161_unless_told_otherwise() {
    let at = |host: &str, port| Ok((host.to_string(), port));
    assert_eq!(agent(json!({"ipv4": "192.0.2.1"})), at("192.0.2.1", 161));
    assert_eq!(agent(json!({"ipv4": "192.0.2.1", "port": 1161})), at("192.0.2.1", 1161));
    assert_eq!(agent(json!({"port": "1161", "ipv6": "2001:db8::1"})), at("2001:db8::1", 1161));
    assert_eq!(agent(json!({"port": 161.0, "ipv4": "switch.example"})), at("switch.example", 161));
    assert_eq!(agent(json!({"port": null, "host": "switch.example", "x": [{}]})), at("switch.example", 161));
    assert_eq!(agent(json!({"ipv6": "2001:db8::1", "ipv4": "192.0.2.1"})), at("192.0.2.1", 161));
    for port in [json!(0), json!(-1), json!(65_536), json!("70000")] {
        assert_eq!(
            agent(json!({"ipv4": "192.0.2.1", "port": port})),
            Err("details: `port` is not within 1 to 65535")
        );
    }
    assert_eq!(agent(json!({})), Err("details: none of `ipv4`, `ipv6`, `hostname` and `host` is set"));
    assert!(agent(json!({"ipv4": "192.0.2.300"})).is_err());
    let error = from_slice::<SnmpEntity<64>>(br#"{"ipv4":"192.0.2.1","port":"x"}"#, &mut []).unwrap_err();
    assert_eq!(error.field(), Some("port"));
}

// ---- credentials ----

fn v3() -> Value {
    json!({
        "version": "snmpv3",
        "snmpv3_securityName": "grafolean",
        "snmpv3_securityLevel": "authPriv",
        "snmpv3_authProtocol": "SHA",
        "snmpv3_authKey": "maplesyrup",
        "snmpv3_privProtocol": "AES",
        "snmpv3_privKey": " pass word ",
    })
}

/// `details` with `key` set so, or removed if it is null.
fn with(details: Value, key: &str, value: Value) -> Value {
    let Value::Object(mut map) = details else { panic!("no object") };
    if value.is_null() {
        map.remove(key)
    } else {
        map.insert(key.to_string(), value)
    };
    Value::Object(map)
}

fn refused(details: &Value) -> &'static str {
    let credential: SnmpCredential<256> = read(details);
    credential.settings().expect_err(&details.to_string())
}

#[test]
fn a_credential_of_the_web_pages_form_is_understood() {
    let credential: SnmpCredential<256> = read(&json!({"version": "snmpv2c", "snmpv12_community": "public"}));
    assert_eq!(credential.settings(), Ok(Settings::V2c { community: "public" }));
    let credential: SnmpCredential<256> = read(&json!({"snmpv12_community": "a b ", "version": "snmpv1"}));
    assert_eq!(credential.settings(), Ok(Settings::V1 { community: "a b " }));
    let credential: SnmpCredential<256> = read(&v3());
    let auth = Some((AuthProtocol::Sha1, "maplesyrup"));
    let privacy = Some((PrivProtocol::Aes128, " pass word "));
    assert_eq!(credential.settings(), Ok(Settings::V3 { user: "grafolean", auth, privacy }));
    // What the level does not use is not looked at.
    let level = |level: &str| with(v3(), "snmpv3_securityLevel", json!(level));
    let credential: SnmpCredential<256> = read(&with(level("authNoPriv"), "snmpv3_privKey", json!("")));
    assert_eq!(credential.settings(), Ok(Settings::V3 { user: "grafolean", auth, privacy: None }));
    let credential: SnmpCredential<256> =
        read(&with(level("noAuthNoPriv"), "snmpv3_authProtocol", json!("?")));
    assert_eq!(credential.settings(), Ok(Settings::V3 { user: "grafolean", auth: None, privacy: None }));
}

#[test]
fn protocols_are_read_in_the_spellings_that_are_about() {
    for (name, protocol) in [
        ("MD5", AuthProtocol::Md5),
        ("sha", AuthProtocol::Sha1),
        ("SHA-1", AuthProtocol::Sha1),
        ("SHA224", AuthProtocol::Sha224),
        ("SHA-256", AuthProtocol::Sha256),
        ("sha384", AuthProtocol::Sha384),
        ("SHA512", AuthProtocol::Sha512),
    ] {
        let credential: SnmpCredential<256> = read(&with(v3(), "snmpv3_authProtocol", json!(name)));
        let Ok(Settings::V3 { auth: Some((found, _)), .. }) = credential.settings() else { panic!("{name}") };
        assert_eq!(found, protocol, "{name}");
    }
    for (name, protocol) in [
        ("DES", PrivProtocol::Des),
        ("aes", PrivProtocol::Aes128),
        ("AES-128", PrivProtocol::Aes128),
        ("AES192", PrivProtocol::Aes192),
        ("AES256", PrivProtocol::Aes256),
    ] {
        let credential: SnmpCredential<256> = read(&with(v3(), "snmpv3_privProtocol", json!(name)));
        let Ok(Settings::V3 { privacy: Some((found, _)), .. }) = credential.settings() else {
            panic!("{name}")
        };
        assert_eq!(found, protocol, "{name}");
    }
}

#[test]
fn a_credential_that_is_wrong_is_told_by_the_key_and_never_by_what_it_holds() {
    let v2 = json!({"version": "snmpv2c", "snmpv12_community": "public"});
    for (details, key, value, why) in [
        (v2.clone(), "version", json!(null), "`version` is not set"),
        (v2.clone(), "version", json!(""), "`version` is not set"),
        (v2.clone(), "version", json!("2"), "`version` is none of"),
        (v2.clone(), "snmpv12_community", json!(null), "`snmpv12_community` is not set"),
        (v2.clone(), "snmpv12_community", json!("x".repeat(300)), "longer than this bot can keep"),
        (v3(), "snmpv3_securityName", json!(""), "`snmpv3_securityName` is not set"),
        (v3(), "snmpv3_securityName", json!("x".repeat(33)), "longer than 32 bytes"),
        (v3(), "snmpv3_securityLevel", json!(null), "`snmpv3_securityLevel` is not set"),
        (v3(), "snmpv3_securityLevel", json!("all"), "`snmpv3_securityLevel` is none of"),
        (v3(), "snmpv3_authProtocol", json!(null), "`snmpv3_authProtocol` is not set"),
        (v3(), "snmpv3_authProtocol", json!("CRC"), "`snmpv3_authProtocol` is none of"),
        (v3(), "snmpv3_authKey", json!("7 bytes"), "`snmpv3_authKey` has less than 8 bytes"),
        (v3(), "snmpv3_privProtocol", json!(null), "`snmpv3_privProtocol` is not set"),
        (v3(), "snmpv3_privProtocol", json!("ROT13"), "`snmpv3_privProtocol` is none of"),
        (v3(), "snmpv3_privKey", json!(null), "`snmpv3_privKey` has less than 8 bytes"),
    ] {
        let told = refused(&with(details, key, value.clone()));
        assert!(told.contains(why) && told.starts_with("credential: "), "{key} {value}: {told}");
    }
}

#[test]
fn debug_shows_no_secret() {
    let credential: SnmpCredential<256> = read(&v3());
    let shown = format!("{credential:?} {:?} {:#?}", credential.settings(), credential);
    let v2: SnmpCredential<256> = read(&json!({"version": "snmpv2c", "snmpv12_community": "s3cret"}));
    let shown = format!("{shown} {v2:?} {:?}", v2.settings());
    assert!(shown.contains("Sha1") && shown.contains("V2c"), "{shown}");
    for secret in ["maplesyrup", "pass word", "grafolean", "s3cret"] {
        assert!(!shown.contains(secret), "{shown}");
        // Nor as the bytes of the buffer.
        let bytes = secret.bytes().take(4).map(|byte| byte.to_string()).collect::<Vec<_>>().join(", ");
        assert!(!shown.contains(&bytes), "{shown}");
    }
}

// ---- sensors ----

fn sensor(oids: &[(&str, &str)], expression: &str, output_path: &str) -> Value {
    let oids: Vec<Value> =
        oids.iter().map(|(oid, method)| json!({"oid": oid, "fetch_method": method})).collect();
    json!({"oids": oids, "expression": expression, "output_path": output_path})
}

const UPTIME: (&str, &str) = ("1.3.6.1.2.1.1.3.0", "get");

fn fault(details: &Value) -> String {
    let sensor: SnmpSensor<512> = read(details);
    sensor.plan::<32>().map(|_| ()).expect_err(&details.to_string()).to_string()
}

#[test]
fn sensors_of_the_web_pages_form_are_planned() {
    let if_descr = ("1.3.6.1.2.1.2.2.1.2", "walk");
    for (details, oids, value, path) in [
        (sensor(&[UPTIME], "$1 / 100", "uptime"), "1.3.6.1.2.1.1.3.0 Get", 0.01, "uptime"),
        (
            sensor(&[if_descr, ("1.3.6.1.2.1.2.2.1.10", "walk")], "$2", "if.in-octets.{$index}.{$1}"),
            "1.3.6.1.2.1.2.2.1.2 Walk, 1.3.6.1.2.1.2.2.1.10 Walk",
            2.0,
            "if.in-octets.7.Core-6",
        ),
        (
            sensor(
                &[("1.3.6.1.4.1.2021.13.16.2.1.2", "walk"), (" .1.3.6.1.4.1.2021.13.16.2.1.3 ", "WALK")],
                " $2 / 1000.0 ",
                " lmsensors.temp.{$index}.{$1} ",
            ),
            "1.3.6.1.4.1.2021.13.16.2.1.2 Walk, 1.3.6.1.4.1.2021.13.16.2.1.3 Walk",
            0.002,
            "lmsensors.temp.7.Core-6",
        ),
    ] {
        let sensor: SnmpSensor<192> = read(&details);
        let plan = sensor.plan::<32>().unwrap();
        let found: Vec<String> = plan.oids().map(|(oid, method)| format!("{oid} {method:?}")).collect();
        assert_eq!(found.join(", "), oids);
        assert_eq!(plan.has_walk(), oids.contains("Walk"));
        let operands = [Operand::Number(1.0), Operand::Number(2.0)];
        assert_eq!(plan.expression.evaluate(&operands), Ok(value));
        let pieces = [Piece::Text(b"Core 6"), Piece::Number(2)];
        assert_eq!(plan.output_path.path(&pieces, [7].into_iter()).to_string(), path);
    }
}

#[test]
fn fields_may_come_in_any_order_and_with_escapes_and_others_are_ignored() {
    let details = br#"{"output_path":"a\u002eb","x":{"oid":1},"expression":"$1 \u003e 0","oids":[{"fetch_method":"walk","y":[],
        "oid":"1\u002e3.6"},{"oid":"1.3.7","fetch_method":"get"}],"id":9}"#;
    let sensor: SnmpSensor<64> = from_slice(details, &mut [0; 64]).unwrap();
    let plan = sensor.plan::<8>().unwrap();
    let found: Vec<_> = plan.oids().map(|(oid, method)| (oid.to_string(), method)).collect();
    assert_eq!(found, [("1.3.6".into(), FetchMethod::Walk), ("1.3.7".into(), FetchMethod::Get)]);
    assert_eq!(plan.expression.evaluate(&[Operand::Number(5.0)]), Ok(1.0));
    assert_eq!(plan.output_path.path(&[], [].into_iter()).to_string(), "a.b");
    // What is there twice counts as it was last, as for the web page.
    let details = br#"{"oids":[{"oid":"9.9","oid":"1.3.6","fetch_method":"walk","fetch_method":"get"}],"expression":"2",
        "expression":"3","output_path":"b","output_path":"c"}"#;
    let sensor: SnmpSensor<64> = from_slice(details, &mut [0; 64]).unwrap();
    let plan = sensor.plan::<8>().unwrap();
    assert_eq!(plan.oids().map(|(oid, _)| oid.to_string()).collect::<Vec<_>>(), ["1.3.6"]);
    assert_eq!(plan.expression.evaluate(&[]), Ok(3.0));
}

#[test]
fn a_sensor_that_is_wrong_is_told_by_field_and_place() {
    let good = sensor(&[UPTIME, UPTIME], "$1", "a");
    let set = |key: &str, value: Value| with(good.clone(), key, value);
    let item = |item: Value| set("oids", json!([{"oid": UPTIME.0, "fetch_method": "get"}, item]));
    let oid = |oid: &str| item(json!({"oid": oid, "fetch_method": "get"}));
    for (details, told) in [
        (set("oids", json!(null)), "`oids`: there is none"),
        (set("oids", json!([])), "`oids`: there is none"),
        (json!({"oids": null}), "`oids`: there is none"),
        (json!({}), "`oids`: there is none"),
        (oid(""), "`oids`, column 2: `oid` is not set"),
        (item(json!({"fetch_method": "get"})), "`oids`, column 2: `oid` is not set"),
        (item(json!({"oid": null, "fetch_method": "get"})), "`oids`, column 2: `oid` is not set"),
        (item(json!({"oid": "1.3"})), "`oids`, column 2: `fetch_method` is not set"),
        (
            item(json!({"oid": "1.3", "fetch_method": "bulk"})),
            "`oids`, column 2: `fetch_method` is neither `get` nor `walk`",
        ),
        (
            oid("IF-MIB::ifDescr"),
            "`oids`, column 2: the OID is not of decimal numbers joined by dots (names are not known here)",
        ),
        (
            oid("1.3..6"),
            "`oids`, column 2: the OID is not of decimal numbers joined by dots (names are not known here)",
        ),
        (oid("1"), "`oids`, column 2: the OID has less than two numbers"),
        (oid("3.1"), "`oids`, column 2: the OID begins with numbers that none begins with"),
        (oid("1.3.4294967296"), "`oids`, column 2: the OID has a number above 4294967295"),
        (oid(&format!("1.3{}", ".4294967295".repeat(20))), "`oids`, column 2: the OID is too long"),
        (oid(&format!("1.3{}", ".1".repeat(130))), "`oids`, column 2: the OID is too long"),
        (set("expression", json!(null)), "`expression`, column 1: empty"),
        (
            set("expression", json!("$1 +")),
            "`expression`, column 5: a number, `$n`, function, `(` or sign is expected",
        ),
        (
            set("expression", json!("$3")),
            "`expression`, column 1: `$` with a number that no OID of this sensor has",
        ),
        (
            set("expression", json!("$1+".repeat(30) + "1")),
            "`expression`, column 48: too many numbers and operators (limit 32)",
        ),
        (set("output_path", json!("")), "`output_path`, column 1: empty"),
        (set("output_path", json!("a.{$1")), "`output_path`, column 3: this `{` is not closed"),
        (
            set("output_path", json!("a.{$name}")),
            "`output_path`, column 3: braces take `{$1}` (up to the number of OIDs), `{$index}` and `{$indexes}`",
        ),
        (
            set("output_path", json!("a b")),
            "`output_path`, column 2: a character that no path has: A-Z a-z 0-9 _ - %2e %3a and dots are allowed",
        ),
        (
            set("output_path", json!("x".repeat(200))),
            "`output_path`, column 1: too long for a path (limit 200)",
        ),
        (
            set("expression", json!(" ".repeat(9) + &"1".repeat(600))),
            "`details`: its texts together are longer than this bot can keep (limit 512)",
        ),
    ] {
        assert_eq!(fault(&details), told, "{details}");
    }
    let many: Vec<(&str, &str)> = std::iter::repeat_n(("1.3", "get"), 33).collect();
    assert_eq!(fault(&sensor(&many, "$1", "a")), "`oids`, column 33: more OIDs than an expression can name");
    let many: SnmpSensor<512> = read(&sensor(&many[..32], "$32", "a"));
    assert_eq!(many.plan::<32>().unwrap().oids().count(), 32);
    // Of another kind than any form stores: told by the reader, with the field.
    let error = from_slice::<SnmpSensor<64>>(br#"{"oids":"1.3"}"#, &mut []).unwrap_err();
    assert_eq!(error.field(), Some("oids"));
    assert!(from_slice::<SnmpSensor<64>>(br#"{"expression":7}"#, &mut []).is_err());
}

#[test]
fn a_record_is_compact() {
    assert!(size_of::<SnmpSensor<192>>() <= 192 + 72, "{}", size_of::<SnmpSensor<192>>());
    assert!(size_of::<SnmpCredential<96>>() <= 96 + 40, "{}", size_of::<SnmpCredential<96>>());
    assert!(size_of::<SnmpEntity<64>>() <= 64 + 16, "{}", size_of::<SnmpEntity<64>>());
}
