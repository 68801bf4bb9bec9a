//! Documents that are small and want to be large, deep or slow, and documents that somebody's hand has slipped on.

/// As much text as a document may have.
const TEXT_BYTES_MAX: usize = 4 << 20;

/// Texts that use YAML to grow, to nest or to take long, with a name for each. `key` is one that the document may have.
pub fn bombs(key: &str) -> Vec<(String, String)> {
    let mut bombs = vec![
        ("laughs".to_owned(), laughs(key)),
        (
            "a long text a hundred times".to_owned(),
            format!("{key}: &a {}\nb: [{}]\n", "x".repeat(100_000), "*a, ".repeat(100)),
        ),
        (
            "anchors of anchors".to_owned(),
            (0..60_u32).fold("a0: &a0 [x]\n".to_owned(), |text, level| {
                format!("{text}a{}: &a{} [*a{level}]\n", level + 1, level + 1)
            }),
        ),
        (
            "a long text".to_owned(),
            format!("{key}: {}\n", "x".repeat(TEXT_BYTES_MAX - 100)),
        ),
        ("a long key".to_owned(), format!("{}: 1\n", "x".repeat(100_000))),
        ("a long number".to_owned(), format!("{key}: {}\n", "9".repeat(1 << 20))),
        (
            "many keys".to_owned(),
            (0..60_000).map(|at| format!("key{at}: 1\n")).collect(),
        ),
        (
            "many keys below".to_owned(),
            format!("{key}:\n") + &(0..60_000).map(|at| format!("  key{at}: x\n")).collect::<String>(),
        ),
        (
            "many items below".to_owned(),
            format!("{key}:\n") + &"  - {name: x, from: y, topic: z, given: {a: 1}}\n".repeat(16_000),
        ),
        ("comments".to_owned(), "# x\n".repeat(200_000)),
        ("empty lines".to_owned(), "\n".repeat(1 << 20)),
        (
            "an indented text".to_owned(),
            format!("{key}: |\n{}", "  x\n".repeat(200_000)),
        ),
        (
            "a folded text".to_owned(),
            format!("{key}: >\n{}", "  x\n\n".repeat(200_000)),
        ),
        (
            "a text on many lines".to_owned(),
            format!("{key}: x{}\n", "\n  x".repeat(200_000)),
        ),
    ];
    let pieces = [
        "[", "{", "- ", "? ", "\"", "'", "&a ", "*a ", "!a ", "!<", "| ", "> ", "%", "@", "`", ": ", ", ", "]", "}",
        "[a: ", "{a: ", "{? ", "[? ", "a: [", "- [", "---\n", "...\n", "\t", "\u{feff}", "\\", "\"\\x", "<<: *a\n",
        "a:\n a: ", "- - [", "? - ", "&a [", "#",
    ];
    for piece in pieces {
        bombs.push((format!("{piece:?} again and again"), piece.repeat(60_000 / piece.len())));
        bombs.push((
            format!("{piece:?} again and again below"),
            format!("{key}: {}", piece.repeat(60_000 / piece.len())),
        ));
    }
    bombs.push((
        "ever more indented".to_owned(),
        (0..1500).map(|depth| format!("{}a:\n", " ".repeat(depth))).collect(),
    ));
    bombs
}

fn laughs(key: &str) -> String {
    let mut text = format!("{key}: &a0 [x, x, x, x, x, x, x, x, x, x]\n");
    for level in 1..20 {
        let below = format!("*a{}, ", level - 1).repeat(10);
        text.push_str(&format!("a{level}: &a{level} [{below}]\n"));
    }
    text
}

/// A text with pieces cut out, doubled, moved or replaced by words, four bytes for each edit.
pub fn edited(text: &str, edits: &[u8], words: &[&str]) -> String {
    let mut letters: Vec<char> = text.chars().collect();
    for edit in edits.chunks_exact(4) {
        let place = (usize::from(edit[0]) * 256 + usize::from(edit[1])) % (letters.len() + 1);
        let end = (place + usize::from(edit[2] % 40)).min(letters.len());
        let piece: Vec<char> = letters[place..end].to_vec();
        match edit[3] % 4 {
            0 => drop(letters.drain(place..end)),
            1 => drop(letters.splice(place..place, piece)),
            2 => {
                letters.drain(place..end);
                let to = place / 2;
                letters.splice(to..to, piece);
            }
            _ => {
                let word = words[usize::from(edit[2]) % words.len()];
                letters.splice(place..end, word.chars());
            }
        }
    }
    letters.into_iter().collect()
}
