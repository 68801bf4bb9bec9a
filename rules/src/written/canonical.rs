//! A document without what doesn't matter.

use serde_json::json;

use super::{Action, Mask, Meter, Rule, Spot, Sql, Target, Written};
use crate::expression::Parsed;

impl Written<'_> {
    /// The document without its tenant, tests, comments and layout: equal texts do the same to equal events.
    pub fn canonical(&self) -> String {
        let sql = |sql: &Sql| sql.parsed.text.trim().to_owned();
        let meter = |(name, meter): (&String, &Meter)| json!([name, &*meter.unit, meter.scale]);
        let rule = |rule: &Rule| {
            let names = |names: &[(String, Spot)]| names.iter().map(|(name, _)| name.clone()).collect::<Vec<_>>();
            let action = match &rule.action {
                Action::Drop => json!("drop"),
                Action::Set(sets) => {
                    json!({"set": sets.iter().map(|(to, value)| json!([to.name.written(), sql(value)])).collect::<Vec<_>>()})
                }
                Action::Mask(masks) => {
                    let masked =
                        |(target, _, hidden): &(Target, Mask, Parsed)| json!([target.name.written(), hidden.text]);
                    json!({"mask": masks.iter().map(masked).collect::<Vec<_>>()})
                }
                Action::Rename(moves) => {
                    let moved = |(from, to): &(Target, Target)| json!([from.name.written(), to.name.written()]);
                    json!({"rename": moves.iter().map(moved).collect::<Vec<_>>()})
                }
                Action::Route(tables) => json!({"route": names(tables)}),
                Action::Alert { severity, key, text } => {
                    json!({"alert": [severity.as_str(), key.as_ref().map(sql), sql(text)]})
                }
                Action::Charge { meter, quantity, .. } => json!({"charge": [meter, sql(quantity)]}),
            };
            json!([
                &*rule.name,
                rule.events.as_deref().map(names),
                rule.when.as_ref().map(sql),
                action
            ])
        };
        let meters: Vec<_> = self.meters.iter().map(meter).collect();
        let rules: Vec<_> = self.rules.iter().map(rule).collect();
        json!([meters, rules]).to_string()
    }
}
