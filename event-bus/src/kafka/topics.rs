//! Making and checking topics.

use std::sync::Arc;
use std::time::Duration;

use event_schemas::AggregateType;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::types::RDKafkaErrorCode;

use super::{Kafka, Logged};
use crate::BusError;

/// How long a broker may take for an answer.
const ANSWER: Duration = Duration::from_secs(5);

impl Kafka {
    /// Makes the topics that are not there and checks the number of partitions of those that are.
    pub async fn ensure_topics(&self) -> Result<(), BusError> {
        let admin: AdminClient<_> = self.client().create_with_context(Logged)?;
        let admin = Arc::new(admin);
        let ensured = self.ensure(&admin).await;
        // Waits for the client's threads.
        tokio::task::spawn_blocking(move || drop(admin));
        ensured
    }

    /// Deletes the topics with everything in them. What was in them is in the log; groups that are behind read it there.
    pub async fn delete_topics(&self) -> Result<(), BusError> {
        let admin: AdminClient<_> = self.client().create_with_context(Logged)?;
        let names = AggregateType::ALL.map(|kind| self.topic(kind));
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let limits = AdminOptions::new().request_timeout(Some(ANSWER));
        let deleted = admin.delete_topics(&names, &limits).await;
        tokio::task::spawn_blocking(move || drop(admin));
        for outcome in deleted? {
            match outcome {
                Ok(_)
                | Err((_, RDKafkaErrorCode::UnknownTopicOrPartition | RDKafkaErrorCode::UnknownTopic)) => {}
                Err((topic, code)) => return Err(BusError::Kafka(format!("topic {topic}: {code}"))),
            }
        }
        Ok(())
    }

    /// Deletes the consumer groups of `subscribers`, none of which may have a member any more. Their positions are kept
    /// elsewhere.
    pub async fn delete_groups(&self, subscribers: &[String]) -> Result<(), BusError> {
        let admin: AdminClient<_> = self.client().create_with_context(Logged)?;
        let prefix = &self.options().topic_prefix;
        let groups = subscribers
            .iter()
            .map(|subscriber| format!("{prefix}.{subscriber}"));
        let groups: Vec<String> = groups.collect();
        let groups: Vec<&str> = groups.iter().map(String::as_str).collect();
        let limits = AdminOptions::new().request_timeout(Some(ANSWER));
        let deleted = admin.delete_groups(&groups, &limits).await;
        tokio::task::spawn_blocking(move || drop(admin));
        for outcome in deleted? {
            match outcome {
                Ok(_) | Err((_, RDKafkaErrorCode::GroupIdNotFound)) => {}
                Err((group, code)) => return Err(BusError::Kafka(format!("group {group}: {code}"))),
            }
        }
        Ok(())
    }

    async fn ensure(&self, admin: &Arc<AdminClient<Logged>>) -> Result<(), BusError> {
        let names = AggregateType::ALL.map(|kind| self.topic(kind));
        let found = self.partition_counts(admin).await?;
        let missing: Vec<&String> = names
            .iter()
            .filter(|name| !found.iter().any(|(topic, _)| topic == *name))
            .collect();
        let found = if missing.is_empty() {
            found
        } else {
            self.create(admin, &missing).await?;
            self.partition_counts(admin).await?
        };
        for (topic, partitions) in found {
            if names.contains(&topic) && partitions != usize::from(self.options().partitions) {
                return Err(BusError::Partitions {
                    topic,
                    found: partitions,
                    configured: self.options().partitions,
                });
            }
        }
        Ok(())
    }

    async fn create(&self, admin: &AdminClient<Logged>, missing: &[&String]) -> Result<(), BusError> {
        let options = self.options();
        let retention = options.retention.as_millis().to_string();
        let largest = options.max_message_bytes.to_string();
        let topics: Vec<NewTopic<'_>> = missing
            .iter()
            .map(|name| {
                let replication = TopicReplication::Fixed(i32::from(options.replication.max(1)));
                NewTopic::new(name, i32::from(options.partitions), replication)
                    .set("retention.ms", &retention)
                    .set("max.message.bytes", &largest)
            })
            .collect();
        let limits = AdminOptions::new()
            .request_timeout(Some(ANSWER))
            .operation_timeout(Some(ANSWER));
        for made in admin.create_topics(&topics, &limits).await? {
            match made {
                Ok(topic) => tracing::info!(topic, partitions = options.partitions, "made a topic"),
                // Another process was quicker.
                Err((_, RDKafkaErrorCode::TopicAlreadyExists)) => {}
                Err((topic, code)) => return Err(BusError::Kafka(format!("topic {topic}: {code}"))),
            }
        }
        Ok(())
    }

    /// The topics that there are, by name, with their number of partitions.
    async fn partition_counts(
        &self,
        admin: &Arc<AdminClient<Logged>>,
    ) -> Result<Vec<(String, usize)>, BusError> {
        let admin = Arc::clone(admin);
        let prefix = self.options().topic_prefix.clone();
        let read = tokio::task::spawn_blocking(move || {
            let metadata = admin.inner().fetch_metadata(None, ANSWER)?;
            let topics = metadata.topics().iter();
            let ours = topics.filter(|topic| topic.name().starts_with(&prefix) && topic.error().is_none());
            Ok(ours
                .map(|topic| (topic.name().to_owned(), topic.partitions().len()))
                .collect())
        });
        read.await
            .unwrap_or_else(|_| Err(BusError::Kafka("the metadata request panicked".to_owned())))
    }
}
