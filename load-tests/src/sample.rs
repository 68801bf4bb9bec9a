//! The stock of values that events are made of. Addresses and names are those kept for examples (RFC 2606, RFC 5737).

use crate::event::{Campaign, Machine, Page};

const fn page(
    url: &'static str,
    path: &'static str,
    title: &'static str,
    referrer: Option<&'static str>,
    search: Option<&'static str>,
) -> Page {
    Page {
        url,
        path,
        title,
        referrer,
        search,
    }
}

pub(crate) const PAGES: [Page; 8] = [
    page("https://shop.example/", "/", "Home", None, None),
    page(
        "https://shop.example/buero",
        "/buero",
        "Büro & Zubehör",
        Some("https://shop.example/"),
        None,
    ),
    page(
        "https://shop.example/desks?sort=price",
        "/desks",
        "Desks",
        Some("https://search.example/"),
        Some("?sort=price"),
    ),
    page(
        "https://shop.example/desks/4711",
        "/desks/4711",
        "Desk “Ålesund”",
        Some("https://shop.example/desks"),
        None,
    ),
    page(
        "https://shop.example/search?q=lampe",
        "/search",
        "Search: lampe",
        None,
        Some("?q=lampe"),
    ),
    page(
        "https://shop.example/cart",
        "/cart",
        "Cart 🛒",
        Some("https://shop.example/desks/4711"),
        None,
    ),
    page(
        "https://shop.example/checkout",
        "/checkout",
        "Checkout",
        Some("https://shop.example/cart"),
        None,
    ),
    page(
        "https://shop.example/help/returns",
        "/help/returns",
        "返品について",
        Some("https://search.example/"),
        None,
    ),
];

pub(crate) const CAMPAIGNS: [Campaign; 3] = [
    Campaign {
        source: "search",
        medium: "cpc",
        name: "autumn",
        term: Some("standing desk"),
        content: Some("banner-b"),
    },
    Campaign {
        source: "newsletter",
        medium: "email",
        name: "2026-47",
        term: None,
        content: None,
    },
    Campaign {
        source: "friends",
        medium: "referral",
        name: "bring-one",
        term: None,
        content: Some("card"),
    },
];

const WEB: [&str; 3] = ["shop-web", "8.14.0", "20261117.3"];

pub(crate) const MACHINES: [Machine; 6] = [
    Machine {
        app: WEB,
        browser: ["Firefox", "145.0"],
        device_type: 2,
        device: ["PC", "unknown"],
        os: ["Linux", "6.12"],
        screen: [1920, 1080],
        density: 1.0,
        user_agent: Some("Mozilla/5.0 (X11; Linux x86_64; rv:145.0) Gecko/20100101 Firefox/145.0"),
    },
    Machine {
        app: WEB,
        browser: ["Chrome", "142.0.7444"],
        device_type: 2,
        device: ["PC", "unknown"],
        os: ["Windows", "11"],
        screen: [2560, 1440],
        density: 1.25,
        user_agent: Some("Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 Chrome/142.0.0.0 Safari/537.36"),
    },
    Machine {
        app: WEB,
        browser: ["Safari", "26.1"],
        device_type: 1,
        device: ["iPad15,3", "Apple"],
        os: ["iPadOS", "26.1"],
        screen: [1640, 2360],
        density: 2.0,
        user_agent: Some(
            "Mozilla/5.0 (iPad; CPU OS 18_7 like Mac OS X) AppleWebKit/605.1.15 Version/26.1 Safari/604.1",
        ),
    },
    Machine {
        app: ["shop-ios", "5.2.1", "5210"],
        browser: ["none", ""],
        device_type: 0,
        device: ["iPhone17,1", "Apple"],
        os: ["iOS", "26.1"],
        screen: [1206, 2622],
        density: 3.0,
        user_agent: None,
    },
    Machine {
        app: ["shop-android", "5.2.0", "5200"],
        browser: ["none", ""],
        device_type: 0,
        device: ["Pixel 10", "Google"],
        os: ["Android", "16"],
        screen: [1080, 2424],
        density: 2.625,
        user_agent: Some("okhttp/5.3.0"),
    },
    Machine {
        app: WEB,
        browser: ["Chrome", "142.0.7444"],
        device_type: 0,
        device: ["SM-S938B", "Samsung"],
        os: ["Android", "16"],
        screen: [1440, 3120],
        density: 3.5,
        user_agent: Some("Mozilla/5.0 (Linux; Android 16; K) AppleWebKit/537.36 Chrome/142.0.0.0 Mobile Safari/537.36"),
    },
];

pub(crate) const BOT_USER_AGENTS: [&str; 2] = [
    "Mozilla/5.0 (compatible; ExampleBot/2.1; +https://search.example/bot.html)",
    "pricebot/0.9 (https://prices.example)",
];

/// Locale, time zone.
pub(crate) const PLACES: [[&str; 2]; 6] = [
    ["de-DE", "Europe/Berlin"],
    ["en-GB", "Europe/London"],
    ["fr-FR", "Europe/Paris"],
    ["en-US", "America/New_York"],
    ["ja-JP", "Asia/Tokyo"],
    ["pt-BR", "America/Sao_Paulo"],
];

pub(crate) const NAMES: [&str; 8] = ["ada", "alan", "barbara", "edsger", "grace", "ken", "radia", "zoë"];
pub(crate) const SKUS: [&str; 6] = [
    "desk-4711",
    "lamp-0815",
    "chair-1200",
    "mat-0007",
    "cable-3",
    "shelf-90",
];
pub(crate) const METHODS: [&str; 4] = ["card", "paypal", "sepa", "invoice"];
pub(crate) const CHANNELS: [&str; 3] = ["web", "app", "phone"];
pub(crate) const NAVIGATIONS: [&str; 3] = ["link", "reload", "back"];

/// Message, stack.
pub(crate) const ERRORS: [(&str, Option<&str>); 4] = [
    (
        "TypeError: cart is undefined",
        Some("at render (cart.js:118:9)\n  at update (app.js:40:3)"),
    ),
    ("NetworkError: payment gateway did not answer", None),
    (
        "RangeError: Maximum call stack size exceeded",
        Some("at walk (tree.js:7:12)\n  at walk (tree.js:9:5)"),
    ),
    ("image failed to load: \"größe-2.png\"", None),
];
