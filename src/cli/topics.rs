//! `pub-sub topics`: lists, shows, creates, changes and deletes topics.

mod table;

use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};
use hyper::Method;
use serde::Deserialize;
use serde_json::{Value, json, value::RawValue};

use self::table::{Column, Table};
use super::{Outcome, Problem, arguments, arguments::text, notes, output};
use crate::client::{Remote, encode, query};

/// Topics that are asked for at once.
const PAGE: &str = "100";

pub(super) fn command() -> Command {
    let command = |name: &'static str, about: &'static str| {
        Command::new(name).about(about).disable_help_flag(true).arg(arguments::help())
    };
    let prefix = || Arg::new("prefix").long("prefix").value_name("TEXT").help("Only topics whose names begin so");
    let name = || Arg::new("name").value_name("NAME").required(true).help("The topic's name");
    command("topics", "List, show, create, change and delete topics")
        .disable_help_subcommand(true)
        .arg(prefix())
        // These may stand before the name of a command or behind it.
        .arg(arguments::json("Print what the server responds, one object a line").global(true))
        .args(arguments::server().map(|flag| flag.global(true)))
        .after_help("Without a command, topics lists. Exit codes: 0 done, 1 failed, 2 wrong usage.")
        .subcommand(command("list", "List the topics that you may see").arg(prefix()))
        .subcommand(command("show", "Show one topic").arg(name()))
        .subcommand(command("create", "Create a topic").arg(name()).args(settings()))
        .subcommand(command("update", "Change the settings of a topic").arg(name()).args(settings()))
        .subcommand(command("delete", "Delete topics with their messages and consumers").arg(name().num_args(1..)))
}

fn settings() -> [Arg; 7] {
    [
        Arg::new("latest-per-key")
            .long("latest-per-key")
            .action(ArgAction::SetTrue)
            .help("Keep the newest message of each key, however old it is"),
        Arg::new("history")
            .long("history")
            .action(ArgAction::SetTrue)
            .conflicts_with("latest-per-key")
            .help("Keep the newest messages, whatever keys they have"),
        Arg::new("max-keys")
            .long("max-keys")
            .value_name("N")
            .value_parser(value_parser!(u64).range(1..))
            .help("With --latest-per-key: how many keys may have a value"),
        Arg::new("max-messages")
            .long("max-messages")
            .value_name("N")
            .value_parser(value_parser!(u64).range(1..))
            .help("How many messages it keeps"),
        Arg::new("max-publish-rate")
            .long("max-publish-rate")
            .value_name("N")
            .value_parser(value_parser!(u32))
            .help("How many messages a second may be published; 0 = no limit"),
        Arg::new("max-age")
            .long("max-age")
            .value_name("TIME")
            .help("How old its messages may become, like 90s or 24h; 0s = no limit"),
        Arg::new("expect-every")
            .long("expect-every")
            .value_name("TIME")
            .help("After how long without a message it is said to be silent, like 5m; 0s = never"),
    ]
}

pub(super) async fn run(matches: &ArgMatches) -> Result<Outcome, Problem> {
    let all = matches;
    let (name, matches) = matches.subcommand().unwrap_or(("list", matches));
    let remote = arguments::remote(matches)?;
    let names: Vec<&str> = match name {
        "list" => Vec::new(),
        _ => matches.get_many::<String>("name").into_iter().flatten().map(String::as_str).collect(),
    };
    if name == "list" {
        let prefix = text(matches, "prefix").or(text(all, "prefix"));
        return list(&remote, prefix, matches.get_flag("json")).await;
    }
    let mut outcome = Outcome::Done;
    for topic in &names {
        match one(&remote, name, topic, matches).await {
            // What is left to do is done all the same.
            Err(problem) if names.len() > 1 => {
                let (Problem::Usage(text) | Problem::Failed(text)) = problem;
                notes::note(&text);
                outcome = Outcome::Failed;
            }
            done => done?,
        }
    }
    Ok(outcome)
}

/// Does to one topic what a command says.
async fn one(remote: &Remote, command: &str, topic: &str, matches: &ArgMatches) -> Result<(), Problem> {
    let path = format!("/topics/{}", encode(topic));
    let (response, done) = match command {
        "create" => {
            let mut body = settings_of(matches);
            body["name"] = topic.into();
            (remote.send(Method::POST, "/topics", Some(body.to_string())).await?, "created")
        }
        "update" => {
            let body = settings_of(matches);
            if body.as_object().is_none_or(serde_json::Map::is_empty) {
                let message = "topics update: needs a setting, such as --max-messages or --latest-per-key";
                return Err(Problem::Usage(message.to_owned()));
            }
            (remote.send(Method::PATCH, &path, Some(body.to_string())).await?, "updated")
        }
        "delete" => (remote.send(Method::DELETE, &path, None).await?, "deleted"),
        _ => {
            let shown = remote.send(Method::GET, &path, None).await?;
            let lines = if matches.get_flag("json") { shown.trim().to_owned() + "\n" } else { describe(&shown)? };
            return output::print(&lines);
        }
    };
    output::print(&if matches.get_flag("json") {
        response.trim().to_owned() + "\n"
    } else {
        format!("{done} {topic}\n")
    })
}

/// The settings that are given, as a body has them.
fn settings_of(matches: &ArgMatches) -> Value {
    let mut body = json!({});
    if let Some(messages) = matches.get_one::<u64>("max-messages") {
        body["max_messages"] = (*messages).into();
    }
    if let Some(rate) = matches.get_one::<u32>("max-publish-rate") {
        body["max_publish_rate"] = (*rate).into();
    }
    if let Some(age) = text(matches, "max-age") {
        body["max_age"] = age.into();
    }
    if let Some(silence) = text(matches, "expect-every") {
        body["expect_every"] = silence.into();
    }
    for (flag, retention) in [("history", "HISTORY"), ("latest-per-key", "LATEST_PER_KEY")] {
        if matches.get_flag(flag) {
            body["retention"] = retention.into();
        }
    }
    if let Some(keys) = matches.get_one::<u64>("max-keys") {
        body["max_keys"] = (*keys).into();
    }
    body
}

#[derive(Deserialize)]
struct Page {
    topics: Vec<Box<RawValue>>,
    next: Option<String>,
}

/// A topic in a list.
#[derive(Deserialize)]
struct Listed {
    name: String,
    message_count: u64,
    subscriber_count: u64,
    max_messages: u64,
    max_publish_rate: u64,
    last_published_at: Option<String>,
    #[serde(default)]
    retention: String,
}

async fn list(remote: &Remote, prefix: Option<&str>, json: bool) -> Result<Outcome, Problem> {
    let unreadable = |error: serde_json::Error| Problem::Failed(format!("the list of topics cannot be read: {error}"));
    let mut table = Table::new(&[
        Column::left("NAME"),
        Column::right("MESSAGES"),
        Column::right("SUBSCRIBERS"),
        Column::right("KEEPS"),
        Column::right("RATE"),
        Column::left("LAST PUBLISHED"),
    ]);
    let mut after: Option<String> = None;
    loop {
        let parameters = [("prefix", prefix), ("limit", Some(PAGE)), ("after", after.as_deref())];
        let text = remote.send(Method::GET, &format!("/topics{}", query(&parameters)), None).await?;
        let page: Page = serde_json::from_str(&text).map_err(unreadable)?;
        for topic in &page.topics {
            if json {
                output::print(&format!("{}\n", topic.get()))?;
                continue;
            }
            let topic: Listed = serde_json::from_str(topic.get()).map_err(unreadable)?;
            let rate = if topic.max_publish_rate == 0 { "-".to_owned() } else { topic.max_publish_rate.to_string() };
            let numbers = [topic.message_count, topic.subscriber_count].map(|number| number.to_string());
            let keeps = match topic.retention.as_str() {
                "LATEST_PER_KEY" => "1 a key".to_owned(),
                _ => topic.max_messages.to_string(),
            };
            let last = topic.last_published_at.unwrap_or_else(|| "-".to_owned());
            table.row([vec![topic.name], numbers.to_vec(), vec![keeps, rate, last]].concat());
        }
        match page.next {
            // A server that repeats itself must not be asked for ever.
            Some(next) if after.as_ref() != Some(&next) => after = Some(next),
            _ => break,
        }
    }
    if !json {
        output::print(&table.to_text(notes::output_has_colours()))?;
    }
    Ok(Outcome::Done)
}

/// Shows an object, one field a line. Fields that are another name of one before them are left out.
fn describe(object: &str) -> Result<String, Problem> {
    const OTHER_NAMES: [&str; 3] = ["messages", "subscribers", "last_message_at"];
    let object: Value = serde_json::from_str(object)
        .map_err(|error| Problem::Failed(format!("what the server has sent cannot be read: {error}")))?;
    let fields = object.as_object().into_iter().flatten().filter(|(name, _)| !OTHER_NAMES.contains(&name.as_str()));
    let fields: Vec<_> = fields
        .map(|(name, value)| {
            let value = match value {
                Value::String(text) => text.clone(),
                Value::Null => "-".to_owned(),
                value => value.to_string(),
            };
            (name.replace('_', " "), value)
        })
        .collect();
    let width = fields.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
    Ok(fields.iter().map(|(name, value)| format!("{name:width$}  {value}\n")).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_topic_is_shown_field_by_field() {
        let shown = describe(r#"{"name":"a","message_count":2,"messages":2,"last_published_at":null}"#).unwrap();
        assert_eq!(shown, "name               a\nmessage count      2\nlast published at  -\n");
    }
}
