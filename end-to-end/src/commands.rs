//! What the command line of `sluice` has, as its own help says.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;

/// What the help of one command names.
#[derive(Debug, Default, PartialEq, Eq)]
struct Help {
    below: BTreeSet<String>,
    takes_arguments: bool,
    options: BTreeSet<String>,
}

/// Every command by its words, `""` being `sluice` itself.
#[derive(Debug, Default)]
pub struct Commands(BTreeMap<String, Help>);

impl Commands {
    /// Asks a program for its help, command by command.
    ///
    /// # Panics
    /// When it has none.
    pub fn of(program: &Path) -> Commands {
        let mut commands = Commands::default();
        let mut open = vec![String::new()];
        while let Some(words) = open.pop() {
            let asked = Command::new(program)
                .args(words.split_whitespace())
                .arg("--help")
                .output();
            let asked = asked.unwrap();
            assert!(asked.status.success(), "sluice {words} --help: {}", asked.status);
            let help = read(&String::from_utf8(asked.stdout).unwrap());
            open.extend(
                help.below
                    .iter()
                    .map(|word| format!("{words} {word}").trim().to_owned()),
            );
            commands.0.insert(words, help);
        }
        commands
    }

    /// The commands right below `sluice`.
    pub fn top(&self) -> BTreeSet<String> {
        self.0.get("").map(|help| help.below.clone()).unwrap_or_default()
    }

    /// Whether any command has this option.
    pub fn has_option(&self, option: &str) -> bool {
        self.0.values().any(|help| help.options.contains(option))
    }

    /// What is wrong with the words after `sluice`, as a document has them: `A|B` stands for both, brackets for what may be left
    /// out, and whatever is neither of lower-case letters nor begins with `-` for the reader's own.
    pub fn faults(&self, line: &str) -> Vec<String> {
        let mut faults = Vec::new();
        for words in self.named(line) {
            let Some(help) = self.0.get(&words.join(" ")) else {
                faults.push(words.join(" "));
                continue;
            };
            let options = line.split_whitespace().map(|word| word.trim_matches(['[', ']']));
            let options = options.filter(|word| word.starts_with('-') && word.len() > 1);
            let options = options.filter_map(|word| word.split(['=', ',', ';']).next());
            let unknown = options.filter(|option| !help.options.contains(*option));
            faults.extend(unknown.map(|option| format!("{} {option}", words.join(" "))));
        }
        faults
    }

    /// The words that name the commands of a line: as many as there are commands below each other.
    fn named(&self, line: &str) -> Vec<Vec<String>> {
        let is_word = |word: &str| !word.starts_with('-') && word.chars().all(|l| l.is_ascii_lowercase() || l == '-');
        let mut named = vec![Vec::new()];
        for part in line.split_whitespace() {
            let alternatives: Vec<&str> = part.split('|').collect();
            if !alternatives.iter().all(|word| !word.is_empty() && is_word(word)) {
                break;
            }
            let whole = |words: &Vec<String>| self.0.get(&words.join(" ")).is_none_or(|help| help.takes_arguments);
            if named.iter().any(whole) {
                break;
            }
            let longer = |words: &Vec<String>| {
                let words = words.clone();
                alternatives
                    .iter()
                    .map(move |word| [words.clone(), vec![(*word).to_owned()]].concat())
            };
            named = named.iter().flat_map(longer).collect();
        }
        named.retain(|words| !words.is_empty());
        named
    }
}

/// Reads what clap prints.
fn read(text: &str) -> Help {
    let mut help = Help::default();
    let mut section = "";
    for line in text.lines() {
        let indent = line.len() - line.trim_start().len();
        let first = line.split_whitespace().next().unwrap_or_default();
        match (section, indent) {
            _ if first.is_empty() => {}
            (_, 0) => section = line.trim_end_matches(':'),
            ("Commands", 2) if first != "help" => {
                help.below.insert(first.to_owned());
            }
            ("Arguments", 2) => help.takes_arguments = true,
            // `  -p, --pipeline <FILE>  text`, `      --json  text`; a text that goes on stands further right.
            ("Options", 2 | 6) => {
                let words = line.split_whitespace().take_while(|word| word.starts_with('-'));
                let words = words.map(|word| word.trim_end_matches(','));
                help.options.extend(words.map(str::to_owned));
            }
            _ => {}
        }
    }
    help
}

#[cfg(test)]
mod tests {
    use super::*;

    const PARTITIONS: &str = "\
Show where partitions stand

Usage: sluice partitions [OPTIONS] <COMMAND>

Commands:
  list         Show for each partition what is committed
               list-less goes on
  delete-rows  Take the rows out
  help         Print this message or the help of the given subcommand(s)

Options:
      --log-json  Log lines as JSON
  -h, --help      Print help
";

    const DELETE_ROWS: &str = "\
Take the rows out

Usage: sluice partitions delete-rows [OPTIONS] --from <OFFSET> <TOPIC/PARTITION>

Arguments:
  <TOPIC/PARTITION>  For example order.created/3

Options:
      --from <OFFSET>    The first offset
                         --not is no option
  -p, --pipeline <FILE>  The pipeline file

Exit codes: 0
";

    fn commands() -> Commands {
        let below = |words: &[&str]| Help {
            below: words.iter().map(|word| (*word).to_owned()).collect(),
            ..Help::default()
        };
        let mut list = Help::default();
        list.options.insert("--json".to_owned());
        let all = [
            ("", below(&["partitions", "up"])),
            ("up", Help::default()),
            ("partitions", read(PARTITIONS)),
            ("partitions list", list),
            ("partitions delete-rows", read(DELETE_ROWS)),
        ];
        Commands(all.into_iter().map(|(words, help)| (words.to_owned(), help)).collect())
    }

    #[test]
    fn a_help_is_read_without_the_texts_that_go_on() {
        let partitions = read(PARTITIONS);
        let words = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<BTreeSet<_>>();
        assert_eq!(partitions.below, words(&["list", "delete-rows"]));
        assert_eq!(partitions.options, words(&["--log-json", "-h", "--help"]));
        let delete_rows = read(DELETE_ROWS);
        assert_eq!(delete_rows.options, words(&["--from", "-p", "--pipeline"]));
        assert!(delete_rows.takes_arguments && !partitions.takes_arguments);
    }

    #[test]
    fn words_and_options_that_a_command_lacks_are_found() {
        let commands = commands();
        let faults = |line: &str| commands.faults(line);
        for right in [
            "up",
            "partitions",
            "partitions list|delete-rows",
            "partitions delete-rows orders --from N [-p FILE]",
            "partitions list --json, and more",
            "PLACEHOLDER",
        ] {
            assert_eq!(faults(right), Vec::<String>::new(), "{right}");
        }
        assert_eq!(faults("fly"), ["fly"]);
        assert_eq!(faults("up there"), ["up there"]);
        assert_eq!(faults("partitions remove-rows TOPIC/P"), ["partitions remove-rows"]);
        assert_eq!(faults("partitions list|burn"), ["partitions burn"]);
        assert_eq!(
            faults("partitions delete-rows TOPIC/P --from N [--until M] --json=1"),
            ["partitions delete-rows --until", "partitions delete-rows --json"]
        );
        assert!(commands.has_option("--from") && !commands.has_option("--until"));
    }
}
