//! The checks of a body that come before everything else, with the words of their refusals.
//!
//! They are those of Python's `jsonschema`: the first thing found is the one that is named.

use crate::json::Json;

/// A type of JSON Schema with its name in refusals.
#[derive(Clone, Copy)]
pub(crate) enum Type {
    String,
    Number,
    Object,
    List,
    Null,
}

pub(crate) fn check_type(value: &Json, types: &[Type]) -> Result<(), String> {
    let fits = types.iter().any(|t| {
        matches!(
            (t, value),
            (Type::String, Json::Str(_) | Json::LoneSurrogate(_))
                | (Type::Number, Json::Int(_) | Json::Float(_))
                | (Type::Object, Json::Object(_))
                | (Type::List, Json::List(_))
                | (Type::Null, Json::Null)
        )
    });
    if fits {
        return Ok(());
    }
    let names: Vec<&str> = types
        .iter()
        .map(|t| match t {
            Type::String => "'string'",
            Type::Number => "'number'",
            Type::Object => "'object'",
            Type::List => "'array'",
            Type::Null => "'null'",
        })
        .collect();
    Err(format!("{} is not of type {}", value.python_repr(), names.join(", ")))
}

pub(crate) fn check_required(value: &Json, keys: &[&str]) -> Result<(), String> {
    match keys.iter().find(|key| value.get(key).is_none()) {
        Some(key) => Err(format!("'{key}' is a required property")),
        None => Ok(()),
    }
}

/// A body that is an object of these keys and no others. Keys are looked at in the order of the body, missing ones come last.
pub(crate) fn check_object(body: &Json, known: &[(&str, &[Type])], required: &[&str]) -> Result<(), String> {
    check_type(body, &[Type::Object])?;
    let Json::Object(entries) = body else { return Ok(()) };
    for (key, value) in entries {
        match known.iter().find(|(name, _)| name == key) {
            Some((_, types)) => check_type(value, types)?,
            None => return Err(unexpected(key)),
        }
    }
    check_required(body, required)
}

/// The refusal of a key that is not known.
pub(crate) fn unexpected(key: &str) -> String {
    format!("Additional properties are not allowed ('{key}' was unexpected)")
}
