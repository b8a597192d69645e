//! Tokens that are added to a vocabulary, and the roles of tokens, as transformers 5 reads them.

use super::{ROLES, token_named};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use tokenizers::{AddedToken, Tokenizer};

/// Copies the roles of `special_tokens_map.json` into `tokenizer_config.json`, where they have precedence;
/// but not if that lists its added tokens, as all newer ones do.
pub(super) fn with_roles(mut config: Value, map: &Value) -> Value {
    if !config["added_tokens_decoder"].is_null() {
        return config;
    }
    for role in ROLES.into_iter().chain(["pad_token"]) {
        if let Some(token) = token_named(map, role) {
            if config.is_null() {
                config = json!({});
            }
            config[role] = token.into();
        }
    }
    config
}

/// Adds to `tokenizer` the tokens that `tokenizer_config.json` lists in `added_tokens_decoder`, or else the
/// older `added_tokens.json` (token to id), and that are not in its vocabulary. They take the next ids, in
/// the order of those that are listed.
///
/// # Errors
/// A malformed list.
pub(super) fn add(mut tokenizer: Tokenizer, config: &Value, older: &Value) -> tokenizers::Result<Tokenizer> {
    let mut listed: BTreeMap<u64, AddedToken> = BTreeMap::new();
    match &config["added_tokens_decoder"] {
        Value::Null => {
            let special: Vec<&str> =
                ROLES.into_iter().chain(["pad_token"]).filter_map(|role| token_named(config, role)).collect();
            for (token, id) in older.as_object().into_iter().flatten() {
                let id =
                    id.as_u64().ok_or_else(|| format!("added_tokens.json: the id of {token:?} is {id}"))?;
                listed.insert(id, AddedToken::from(token.clone(), special.contains(&token.as_str())));
            }
        }
        Value::Object(tokens) => {
            for (id, token) in tokens {
                let id = id.parse().map_err(|_| format!("added_tokens_decoder: {id:?} is no id"))?;
                let token = serde_json::from_value(token.clone())
                    .map_err(|error| format!("added_tokens_decoder: token {id}: {error}"))?;
                listed.insert(id, token);
            }
        }
        other => return Err(format!("added_tokens_decoder is {other}: it must be an object").into()),
    }
    for token in listed.into_values().filter(|token| !token.content.is_empty()) {
        if tokenizer.token_to_id(&token.content).is_none() {
            if token.special {
                tokenizer.add_special_tokens(&[token])
            } else {
                tokenizer.add_tokens(&[token])
            };
        }
    }
    Ok(tokenizer)
}
