//! All figures of a run.

use std::fmt::Write;

use serde::Serialize;

use super::{NOTHING, escape};

/// Every field of every row, under the names that CSV and JSON have. What no row has is left out.
pub(super) fn table<R: Serialize>(rows: &[R]) -> anyhow::Result<String> {
    let mut shown = Vec::new();
    for row in rows {
        if let serde_json::Value::Object(fields) = serde_json::to_value(row)? {
            shown.push(fields);
        }
    }
    let Some(first) = shown.first() else { return Ok(NOTHING.into()) };
    let is_there =
        |name: &&String| shown.iter().any(|row| row.get(*name).is_some_and(|value| !value.is_null()));
    let names: Vec<&String> = first.keys().filter(is_there).collect();
    let mut table = String::from("<table><tr>");
    for name in &names {
        write!(table, "<th>{}</th>", escape(name))?;
    }
    table.push_str("</tr>");
    for row in &shown {
        table.push_str("<tr>");
        for name in &names {
            let text = match row.get(*name) {
                None | Some(serde_json::Value::Null) => String::new(),
                Some(serde_json::Value::Number(n)) if n.is_f64() => {
                    format!("{:.2}", n.as_f64().unwrap_or_default())
                }
                Some(serde_json::Value::String(text)) => escape(text),
                Some(other) => escape(&other.to_string()),
            };
            write!(table, "<td>{text}</td>")?;
        }
        table.push_str("</tr>");
    }
    table.push_str("</table>");
    Ok(table)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_leaves_out_what_no_row_has() {
        #[derive(Serialize)]
        struct Row {
            name: &'static str,
            value: Option<f64>,
            never: Option<f64>,
        }
        let rows =
            [Row { name: "<x>", value: Some(1.5), never: None }, Row { name: "y", value: None, never: None }];
        let table = table(&rows).unwrap();
        assert!(table.contains("&lt;x&gt;") && table.contains("1.50") && !table.contains("never"), "{table}");
    }
}
