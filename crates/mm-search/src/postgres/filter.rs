//! Filters in PostgreSQL's SQL. They hold for the items for which they hold in a folder: a text is compared
//! byte by byte and never with a number, and lower case is that of ASCII, as in SQLite.

use crate::{Filter, Value};
use postgres::types::ToSql;

/// The values of the parameters of a query.
pub(super) type Parameters = Vec<Box<dyn ToSql + Sync>>;

/// The condition `filter` on the table of items. Its values are appended to `parameters`; the condition has
/// their numbers.
pub(super) fn condition(filter: &Filter, parameters: &mut Parameters) -> String {
    filter.to_sql(&mut |name, comparison, value| {
        let field = field(name, value, parameters);
        let parameter = match value {
            Value::Number(number) => format!("{}::double precision", push(parameters, *number)),
            Value::Text(text) => format!("{}::text COLLATE \"C\"", push(parameters, text.clone())),
        };
        comparison.to_sql(&field, &parameter, "strpos")
    })
}

/// The field `name` as the type of `value`; NULL where it is of another type or missing.
fn field(name: &str, value: &Value, parameters: &mut Parameters) -> String {
    let column = match name {
        "key" => "key",
        "set" => "set_name",
        _ => {
            let name = format!("{}::text", push(parameters, name.to_owned()));
            let (types, target) = match value {
                Value::Number(_) => ("'number'", "::double precision"),
                Value::Text(_) => ("'string', 'array', 'object'", " COLLATE \"C\""),
            };
            return format!(
                "CASE WHEN jsonb_typeof(metadata -> {name}) IN ({types}) THEN (metadata ->> {name}){target} \
                 END"
            );
        }
    };
    match value {
        Value::Number(_) => "NULL::double precision".to_owned(),
        Value::Text(_) => format!("{column} COLLATE \"C\""),
    }
}

/// The parameter of `value`, which is appended.
fn push(parameters: &mut Parameters, value: impl ToSql + Sync + 'static) -> String {
    parameters.push(Box::new(value));
    format!("${}", parameters.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_values_are_parameters_and_joins_keep_their_order() {
        let mut parameters: Parameters = vec![Box::new(0i64)];
        let filter = Filter::parse("key = 'a' and (set != 'b' or not width >= 2)").unwrap();
        let expected = "(coalesce(key COLLATE \"C\" = $2::text COLLATE \"C\", false) AND \
            (coalesce(set_name COLLATE \"C\" <> $3::text COLLATE \"C\", false) OR (NOT coalesce(CASE WHEN \
            jsonb_typeof(metadata -> $4::text) IN ('number') THEN (metadata ->> $4::text)::double precision \
            END >= $5::double precision, false))))";
        assert_eq!(condition(&filter, &mut parameters), expected);
        assert_eq!(parameters.len(), 5);
    }
}
