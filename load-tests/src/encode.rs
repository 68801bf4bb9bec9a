//! Events to Avro bytes, by hand: a load generator shares the machine with what it loads, and building an `apache_avro` value
//! tree for each event costs several times as much. The tests decode every type and version with `apache_avro`.

use crate::event::{Campaign, Event, Machine, Own, Page};

/// Appends the event as its type's schema of this version has it; `version` is one that the type has.
pub fn encode(event: &Event, version: u32, out: &mut Vec<u8>) {
    let mut to = Writer(out);
    envelope(event, version, &mut to);
    context(event, &mut to);
    to.blocks(&event.properties, |to, (key, value)| {
        to.string(key);
        to.string(value);
    });
    own(&event.own, version, &mut to);
}

fn envelope(event: &Event, version: u32, to: &mut Writer) {
    let visitor = &*event.visitor;
    to.uuid(event.id);
    to.string(&visitor.tenant);
    to.string(event.event_type().name());
    to.long(i64::from(version));
    to.string(visitor.source);
    to.optional(visitor.user_id.as_deref(), Writer::string);
    to.string(&visitor.anonymous_id);
    to.uuid(event.session);
    to.long(event.occurred_at_ms);
    to.optional(event.sent_at_ms, Writer::long);
    to.optional(event.received_at_ms, Writer::long);
}

fn context(event: &Event, to: &mut Writer) {
    let visitor = &*event.visitor;
    let Machine {
        app,
        browser,
        device_type,
        device,
        os,
        screen,
        density,
        user_agent,
    } = &visitor.machine;
    to.strings(app);
    to.strings(browser);
    to.long(i64::from(*device_type));
    to.strings(device);
    to.strings(os);
    to.string(visitor.locale);
    to.string(visitor.timezone);
    to.long(i64::from(screen[0]));
    to.long(i64::from(screen[1]));
    to.double(*density);
    let Page {
        url,
        path,
        title,
        referrer,
        search,
    } = event.page;
    to.strings(&[url, path, title]);
    to.optional(referrer, Writer::string);
    to.optional(search, Writer::string);
    to.optional(
        event.campaign,
        |to,
         Campaign {
             source,
             medium,
             name,
             term,
             content,
         }| {
            to.strings(&[source, medium, name]);
            to.optional(term, Writer::string);
            to.optional(content, Writer::string);
        },
    );
    to.optional(visitor.ip.as_deref(), Writer::string);
    to.optional(*user_agent, Writer::string);
}

fn own(own: &Own, version: u32, to: &mut Writer) {
    match own {
        Own::PageView {
            load_time_ms,
            scroll_percent,
            prerendered,
            interactive_after_ms,
            navigation,
        } => {
            to.long(i64::from(*load_time_ms));
            to.long(i64::from(*scroll_percent));
            if version == 1 {
                to.bool(*prerendered);
            } else {
                to.optional(interactive_after_ms.map(i64::from), Writer::long);
                to.string(navigation);
            }
        }
        Own::Order {
            order_id,
            amount_minor,
            currency,
            skus,
            coupon,
            gift,
            shipping_minor,
            channel,
        } => {
            to.string(order_id);
            to.long(*amount_minor);
            to.string(currency);
            to.long(i64::try_from(skus.len()).unwrap_or(i64::MAX));
            to.blocks(skus, |to, sku| to.string(sku));
            to.optional(*coupon, Writer::string);
            if version == 1 {
                to.bool(*gift);
            } else {
                to.optional(*shipping_minor, Writer::long);
                to.string(channel);
            }
        }
        Own::Payment {
            payment_id,
            order_id,
            amount_minor,
            currency,
            status,
            method,
        } => {
            to.strings(&[payment_id, order_id]);
            to.long(*amount_minor);
            to.strings(&[currency, status, method]);
        }
        Own::SessionEnd {
            duration_ms,
            pageviews,
            bounced,
        } => {
            to.long(*duration_ms);
            to.long(i64::from(*pageviews));
            to.bool(*bounced);
        }
        Own::Error {
            severity,
            message,
            stack,
            handled,
        } => {
            to.long(i64::from(*severity));
            to.string(message);
            to.optional(*stack, Writer::string);
            to.bool(*handled);
        }
    }
}

/// Avro's binary encoding (specification 1.11, "Binary Encoding").
pub(crate) struct Writer<'a>(pub &'a mut Vec<u8>);

impl Writer<'_> {
    /// int and long alike: zigzag, seven bits a byte, lowest first.
    pub fn long(&mut self, value: i64) {
        let mut rest = ((value << 1) ^ (value >> 63)).cast_unsigned();
        loop {
            let [low, ..] = rest.to_le_bytes();
            rest >>= 7;
            if rest == 0 {
                self.0.push(low & 0x7f);
                return;
            }
            self.0.push(low | 0x80);
        }
    }

    fn bool(&mut self, value: bool) {
        self.0.push(u8::from(value));
    }

    fn double(&mut self, value: f64) {
        self.0.extend_from_slice(&value.to_le_bytes());
    }

    pub fn string(&mut self, text: &str) {
        self.long(i64::try_from(text.len()).unwrap_or(i64::MAX));
        self.0.extend_from_slice(text.as_bytes());
    }

    fn strings(&mut self, texts: &[&str]) {
        for text in texts {
            self.string(text);
        }
    }

    pub fn uuid(&mut self, uuid: uuid::Uuid) {
        self.string(uuid.hyphenated().encode_lower(&mut uuid::Uuid::encode_buffer()));
    }

    /// A union of null and something, null first.
    pub fn optional<T>(&mut self, value: Option<T>, write: impl FnOnce(&mut Self, T)) {
        match value {
            None => self.long(0),
            Some(value) => {
                self.long(1);
                write(self, value);
            }
        }
    }

    /// An array or a map: one block, then the empty one.
    pub fn blocks<T>(&mut self, items: &[T], write: impl Fn(&mut Self, &T)) {
        if !items.is_empty() {
            self.long(i64::try_from(items.len()).unwrap_or(i64::MAX));
            for item in items {
                write(self, item);
            }
        }
        self.long(0);
    }
}
