//! `lotic group`: list, describe, reset, delete, delete-offsets.

use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;

use lotic_log::group::{GroupDescription, GroupPartition, OffsetReset};
use lotic_log::{Log, TopicPartition};
use serde_json::{Value, json};

use super::{open, open_read_only};
use crate::Failure;
use crate::args::{GroupCommand, ResetOptions, TopicScope};

pub(crate) fn run(data: &Path, command: &GroupCommand) -> Result<ExitCode, Failure> {
    match command {
        GroupCommand::List { json } => list(data, *json)?,
        GroupCommand::Describe { group, json } => describe(data, group, *json)?,
        GroupCommand::Reset(options) => reset(data, options)?,
        GroupCommand::Delete { group, json } => delete(data, group, *json)?,
        GroupCommand::DeleteOffsets { group, topics, json } => delete_offsets(data, group, topics, *json)?,
    }
    Ok(ExitCode::SUCCESS)
}

fn list(data: &Path, as_json: bool) -> Result<(), Failure> {
    let groups = open_read_only(data)?.groups()?;
    let mut out = io::stdout().lock();
    let width = groups.iter().map(|group| group.name.chars().count()).max().unwrap_or(0).max(5);
    if !as_json && !groups.is_empty() {
        writeln!(out, "{:<width$} {:<18} {:>7} {:>14}", "group", "state", "members", "lag")?;
    }
    for group in &groups {
        if as_json {
            writeln!(out, "{}", summary(group))?;
        } else {
            let (name, state) = (&group.name, group.state.to_string());
            writeln!(out, "{name:<width$} {state:<18} {:>7} {:>14}", group.members.len(), group.lag())?;
        }
    }
    Ok(())
}

fn describe(data: &Path, name: &str, as_json: bool) -> Result<(), Failure> {
    let group = open_read_only(data)?.group(name)?;
    let mut out = io::stdout().lock();
    if as_json {
        return Ok(writeln!(out, "{}", whole(&group))?);
    }
    writeln!(out, "group       {}", group.name)?;
    writeln!(out, "state       {}", group.state)?;
    writeln!(out, "generation  {}", group.generation)?;
    writeln!(out, "assignor    {}", group.assignor.as_deref().unwrap_or("-"))?;
    writeln!(out, "lag         {}", group.lag())?;
    writeln!(out)?;
    let width = group.partitions.iter().map(|one| one.partition.topic.len()).max().unwrap_or(0).max(5);
    writeln!(
        out,
        "{:<width$} {:>9} {:>14} {:>14} {:>14}  member",
        "topic", "partition", "committed", "end", "lag"
    )?;
    for row in &group.partitions {
        let TopicPartition { topic, partition } = &row.partition;
        let committed = row.committed.as_ref().map(|committed| committed.offset);
        let (committed, end, lag) = (shown(committed), shown(row.end), shown(row.lag()));
        let member = row.member.as_deref().unwrap_or("-");
        writeln!(out, "{topic:<width$} {partition:>9} {committed:>14} {end:>14} {lag:>14}  {member}")?;
    }
    Ok(())
}

fn reset(data: &Path, options: &ResetOptions) -> Result<(), Failure> {
    // To say what would be done nothing is written, so that works beside a program that runs.
    let log = if options.execute { open(data)? } else { open_read_only(data)? };
    let partitions = if options.scope.all_topics {
        let committed = log.group(&options.group)?.partitions;
        let there = committed.into_iter().filter(|one| one.end.is_some());
        there.map(|one| one.partition).collect()
    } else {
        partitions_of(&log, &options.scope.topics)?
    };
    let (group, to) = (&options.group, options.to.target()?);
    let resets = if options.execute {
        let resets = log.reset_offsets(group, &partitions, to)?;
        log.close()?;
        resets
    } else {
        log.plan_offset_reset(group, &partitions, to)?
    };
    print_resets(options, &resets)
}

fn print_resets(options: &ResetOptions, resets: &[OffsetReset]) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    for OffsetReset { partition: TopicPartition { topic, partition }, before, after } in resets {
        if options.json {
            let object = json!({
                "group": options.group,
                "topic": topic,
                "partition": partition.0,
                "before": before.map(|offset| offset.0),
                "after": after.0,
                "executed": options.execute,
            });
            writeln!(out, "{object}")?;
        } else {
            writeln!(out, "{topic}-{partition}: {} -> {after}", shown(*before))?;
        }
    }
    if !options.execute && !options.json {
        writeln!(io::stderr(), "lotic: nothing was changed; --execute does it")?;
    }
    Ok(())
}

fn delete(data: &Path, group: &str, as_json: bool) -> Result<(), Failure> {
    let log = open(data)?;
    log.delete_group(group)?;
    log.close()?;
    if as_json {
        return Ok(writeln!(io::stdout(), "{}", json!({ "group": group }))?);
    }
    Ok(writeln!(io::stdout(), "deleted group {group}")?)
}

fn delete_offsets(data: &Path, group: &str, topics: &[TopicScope], as_json: bool) -> Result<(), Failure> {
    let log = open(data)?;
    let mut known = log.group(group)?.partitions;
    // A topic that is gone has no partitions, and what was committed for it is to go all the same.
    known.retain(|one| topics.iter().any(|scope| scope.holds(&one.partition)));
    let meant: Vec<_> = known.iter().map(|one| one.partition.clone()).collect();
    if meant.is_empty() {
        return Err(format!("group {group} has committed nothing for what is named").into());
    }
    log.delete_offsets(group, &meant)?;
    log.close()?;
    let mut out = io::stdout().lock();
    for GroupPartition { partition, committed, .. } in &known {
        if as_json {
            let object = json!({
                "group": group,
                "topic": partition.topic,
                "partition": partition.partition.0,
                "committed": committed.as_ref().map(|committed| committed.offset.0),
            });
            writeln!(out, "{object}")?;
        } else {
            writeln!(out, "forgot {partition}")?;
        }
    }
    Ok(())
}

/// The partitions that are named; all of a topic where none are.
fn partitions_of(log: &Log, scopes: &[TopicScope]) -> Result<Vec<TopicPartition>, Failure> {
    let mut partitions = Vec::new();
    for scope in scopes {
        let topic = log.topic(&scope.topic)?;
        match &scope.partitions {
            Some(numbers) => {
                for number in numbers {
                    partitions.push(topic.partition(*number)?.name().clone());
                }
            }
            None => partitions.extend(topic.partitions().iter().map(|partition| partition.name().clone())),
        }
    }
    Ok(partitions)
}

fn shown(value: Option<impl std::fmt::Display>) -> String {
    value.map_or("-".to_owned(), |value| value.to_string())
}

fn summary(group: &GroupDescription) -> Value {
    json!({
        "group": group.name,
        "state": group.state.to_string(),
        "members": group.members.len(),
        "lag": group.lag(),
    })
}

fn whole(group: &GroupDescription) -> Value {
    let members: Vec<_> = group
        .members
        .iter()
        .map(|member| {
            let partitions: Vec<_> = member.partitions.iter().map(ToString::to_string).collect();
            let (id, client, instance) = (&member.id, &member.client_id, &member.instance_id);
            json!({ "id": id, "client": client, "instance": instance, "partitions": partitions })
        })
        .collect();
    let partitions: Vec<_> = group.partitions.iter().map(row).collect();
    let mut object = summary(group);
    object["generation"] = json!(group.generation);
    object["assignor"] = json!(group.assignor);
    object["members"] = json!(members);
    object["partitions"] = json!(partitions);
    object
}

fn row(row: &GroupPartition) -> Value {
    let committed = row.committed.as_ref();
    json!({
        "topic": row.partition.topic,
        "partition": row.partition.partition.0,
        "committed": committed.map(|committed| committed.offset.0),
        "committed_at": committed.map(|committed| committed.committed_at.0),
        "metadata": committed.map(|committed| &committed.metadata),
        "end": row.end.map(|end| end.0),
        "lag": row.lag(),
        "member": row.member,
    })
}
