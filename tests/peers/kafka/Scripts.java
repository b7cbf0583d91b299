import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import com.fasterxml.jackson.databind.node.ArrayNode;
import com.fasterxml.jackson.databind.node.ObjectNode;
import java.io.BufferedInputStream;
import java.io.BufferedOutputStream;
import java.io.DataInputStream;
import java.io.DataOutputStream;
import java.io.IOException;
import java.io.UncheckedIOException;
import java.net.Socket;
import java.nio.ByteBuffer;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.NoSuchFileException;
import java.nio.file.Path;
import java.time.Duration;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.Properties;
import java.util.Set;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.Future;
import java.util.stream.IntStream;
import java.util.stream.Stream;
import java.util.stream.StreamSupport;
import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.clients.admin.AlterConfigOp;
import org.apache.kafka.clients.admin.ConfigEntry;
import org.apache.kafka.clients.admin.ListOffsetsOptions;
import org.apache.kafka.clients.admin.NewTopic;
import org.apache.kafka.clients.admin.OffsetSpec;
import org.apache.kafka.clients.admin.RecordsToDelete;
import org.apache.kafka.clients.consumer.ConsumerGroupMetadata;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.consumer.OffsetAndMetadata;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.clients.producer.RecordMetadata;
import org.apache.kafka.common.IsolationLevel;
import org.apache.kafka.common.KafkaException;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.compress.Compression;
import org.apache.kafka.common.config.ConfigResource;
import org.apache.kafka.common.errors.OffsetOutOfRangeException;
import org.apache.kafka.common.errors.RetriableException;
import org.apache.kafka.common.header.Header;
import org.apache.kafka.common.header.internals.RecordHeader;
import org.apache.kafka.common.message.DescribeTransactionsRequestData;
import org.apache.kafka.common.message.DescribeTransactionsResponseData;
import org.apache.kafka.common.message.FetchRequestData;
import org.apache.kafka.common.message.FetchResponseData;
import org.apache.kafka.common.message.OffsetCommitRequestData;
import org.apache.kafka.common.message.OffsetCommitResponseData;
import org.apache.kafka.common.message.ProduceRequestData;
import org.apache.kafka.common.message.ProduceResponseData;
import org.apache.kafka.common.message.RequestHeaderData;
import org.apache.kafka.common.message.ResponseHeaderData;
import org.apache.kafka.common.protocol.ApiKeys;
import org.apache.kafka.common.protocol.ByteBufferAccessor;
import org.apache.kafka.common.protocol.Errors;
import org.apache.kafka.common.protocol.Message;
import org.apache.kafka.common.protocol.MessageUtil;
import org.apache.kafka.common.record.TimestampType;
import org.apache.kafka.common.record.internal.ControlRecordType;
import org.apache.kafka.common.record.internal.MemoryRecords;
import org.apache.kafka.common.record.internal.Record;
import org.apache.kafka.common.record.internal.RecordBatch;
import org.apache.kafka.common.record.internal.SimpleRecord;
import org.apache.kafka.common.serialization.ByteArrayDeserializer;
import org.apache.kafka.common.serialization.ByteArraySerializer;

/**
 * Does many scripts with Kafka's own clients, several at once, and says what each step came to:
 * {@code java Scripts.java SCRIPTS ADDRESS DATA}, DATA being the broker's folder. A line of SCRIPTS is a script:
 * its number, topic, partitions and config of that, configs of producers, steps ({@link Worker#run} lists what they
 * may be). For each a line is printed: the number, and an answer to each step. A step that the broker or the client
 * refuses is answered with the exception's class, and the script goes on; a script that cannot be done is answered
 * with what failed.
 */
public class Scripts {
    /** How long anything is waited for. */
    static final Duration LIMIT = Duration.ofSeconds(180);

    /** How long what was committed is waited for to expire; the broker keeps it for no less than a minute. */
    static final Duration EXPIRY_LIMIT = Duration.ofSeconds(300);

    /** How long what is committed later than the rest is kept: longer than a run takes. */
    static final Duration LATER = Duration.ofHours(1);

    /** How many scripts are done at once. Most of a script's time is spent waiting for the broker. */
    static final int WORKERS = 4;

    /** How many topics are made at a time. */
    static final int TOPICS_AT_ONCE = 50;

    static final ObjectMapper JSON = new ObjectMapper();

    public static void main(String[] arguments) throws Exception {
        String address = arguments[1];
        Path data = Path.of(arguments[2]);
        List<JsonNode> scripts = new ArrayList<>();
        for (String line : Files.readAllLines(Path.of(arguments[0]))) {
            scripts.add(JSON.readTree(line));
        }
        Admin admin = Admin.create(Map.of("bootstrap.servers", address, "retry.backoff.ms", "10"));
        ExecutorService pool = Executors.newFixedThreadPool(WORKERS);
        ThreadLocal<Worker> workers = ThreadLocal.withInitial(() -> new Worker(address, data, admin));
        List<Future<ObjectNode>> answers = new ArrayList<>();
        for (int first = 0; first < scripts.size(); first += TOPICS_AT_ONCE) {
            List<JsonNode> some = scripts.subList(first, Math.min(scripts.size(), first + TOPICS_AT_ONCE));
            // A script that goes on after a restart of the broker has its topic.
            admin.createTopics(some.stream().filter(script -> !script.has("exists")).map(Scripts::topic).toList()).all().get();
            some.forEach(script -> answers.add(pool.submit(() -> workers.get().answer(script))));
        }
        for (Future<ObjectNode> answer : answers) {
            System.out.println(answer.get());
        }
        System.out.flush();
        // Nothing is closed: that would end what scripts have left open, and wait for it.
        System.exit(0);
    }

    static NewTopic topic(JsonNode script) {
        NewTopic topic = new NewTopic(text(script, "topic"), Optional.of(script.get("partitions").asInt()), Optional.empty());
        return topic.configs(strings(script.get("config")));
    }

    static Map<String, String> strings(JsonNode object) {
        Map<String, String> strings = new HashMap<>();
        object.properties().forEach(entry -> strings.put(entry.getKey(), entry.getValue().asText()));
        return strings;
    }

    static String text(JsonNode node, String field) {
        return node.get(field).asText();
    }

    static byte[] bytes(JsonNode text) {
        return text.isNull() ? null : text.asText().getBytes(StandardCharsets.UTF_8);
    }

    static String string(byte[] bytes) {
        return bytes == null ? null : new String(bytes, StandardCharsets.UTF_8);
    }

    static IsolationLevel isolation(JsonNode step) {
        return step.get("committed").asBoolean() ? IsolationLevel.READ_COMMITTED : IsolationLevel.READ_UNCOMMITTED;
    }

    /** Does one script after the other. What is not the script's own, clients among it, serves all of them. */
    static final class Worker {
        final String address;
        final Path data;
        final Admin admin;
        final Wire wire;
        final Map<IsolationLevel, KafkaConsumer<byte[], byte[]>> consumers = new HashMap<>();
        final Map<Map<String, String>, KafkaProducer<byte[], byte[]>> shared = new HashMap<>();

        String topic;
        JsonNode configs;
        Map<Integer, KafkaProducer<byte[], byte[]>> producers;
        /** By transactional producer the last batch that it has sent. */
        Map<Integer, RecordBatch> lastSent;
        /** How often the topic's config was set. */
        int settings;

        Worker(String address, Path data, Admin admin) {
            this.address = address;
            this.data = data;
            this.admin = admin;
            this.wire = new Wire(address);
            for (IsolationLevel isolation : IsolationLevel.values()) {
                consumers.put(isolation, consumer(isolation));
            }
        }

        ObjectNode answer(JsonNode script) {
            topic = text(script, "topic");
            configs = script.get("producers");
            producers = new HashMap<>();
            lastSent = new HashMap<>();
            ObjectNode line = JSON.createObjectNode().put("script", script.get("script").asLong());
            ArrayNode answers = line.putArray("answers");
            try {
                wire.awaitTopic(topic, script.get("partitions").asInt());
                for (JsonNode step : script.get("steps")) {
                    answers.add(answerStep(step));
                }
                wire.close();
            } catch (Exception failure) {
                line.put("failure", "step " + answers.size() + ": " + failure);
            } finally {
                // At once: a transaction that was left open stays open.
                producers.values().forEach(producer -> producer.close(Duration.ZERO));
            }
            return line;
        }

        ObjectNode answerStep(JsonNode step) throws Exception {
            try {
                return run(step);
            } catch (ExecutionException failure) {
                return refused(failure.getCause());
            } catch (RuntimeException failure) {
                return refused(failure);
            }
        }

        /** The exception's class and, where it only wraps another, that one's. */
        static ObjectNode refused(Throwable failure) {
            Throwable cause = failure.getCause();
            return JSON.createObjectNode().put("refused", failure.getClass().getSimpleName())
                .put("cause", cause == null ? "" : cause.getClass().getSimpleName()).put("message", failure.getMessage());
        }

        ObjectNode run(JsonNode step) throws Exception {
            return switch (text(step, "do")) {
                case "nothing" -> done();
                case "open" -> open(step);
                case "send" -> send(step);
                case "append" -> append(step);
                case "append-as" -> appendAs(step);
                case "begin" -> begin(step);
                case "commit" -> end(step, true);
                case "abort" -> end(step, false);
                case "overstay" -> overstay(step);
                case "commit-offset" -> commitOffset(step);
                case "commit-later" -> commitLater(step);
                case "send-offset" -> sendOffset(step);
                case "committed" -> committed(step);
                case "await-forgotten" -> awaitForgotten(step);
                case "delete-offset" -> deleteOffset(step);
                case "delete-group" -> deleteGroup(step);
                case "delete" -> delete(step);
                case "compact" -> compact(step);
                case "expire" -> expire(step);
                case "shed" -> shed(step);
                case "offsets" -> offsets(step);
                case "find-time" -> findTime(step);
                case "find-newest" -> findNewest(step);
                case "find-dated" -> findDated(step);
                case "consume" -> consume(step);
                case "walk" -> walk(step);
                case "fetch-missing" -> fetchMissing();
                default -> throw new IllegalArgumentException("unknown step: " + step);
            };
        }

        static ObjectNode done() {
            return JSON.createObjectNode().put("done", true);
        }

        TopicPartition partition(JsonNode step) {
            return new TopicPartition(topic, step.get("partition").asInt());
        }

        /** producer: takes its transactional id. */
        ObjectNode open(JsonNode step) {
            int number = step.get("producer").asInt();
            KafkaProducer<byte[], byte[]> producer = make(strings(configs.get(number)));
            producers.put(number, producer);
            producer.initTransactions();
            return done();
        }

        KafkaProducer<byte[], byte[]> producer(JsonNode step) {
            int number = step.get("producer").asInt();
            KafkaProducer<byte[], byte[]> own = producers.get(number);
            return own != null ? own : shared.computeIfAbsent(strings(configs.get(number)), this::make);
        }

        /** Batches go when they are flushed, so that each send step is one. */
        KafkaProducer<byte[], byte[]> make(Map<String, String> config) {
            Properties properties = clientProperties();
            properties.put("linger.ms", "60000");
            properties.put("delivery.timeout.ms", "120000");
            properties.put("max.block.ms", Long.toString(LIMIT.toMillis()));
            properties.putAll(config);
            return new KafkaProducer<>(properties, new ByteArraySerializer(), new ByteArraySerializer());
        }

        Properties clientProperties() {
            Properties properties = new Properties();
            properties.put("bootstrap.servers", address);
            properties.put("retry.backoff.ms", "5");
            properties.put("reconnect.backoff.ms", "5");
            // Whatever the machine does beside this.
            properties.put("request.timeout.ms", "60000");
            return properties;
        }

        KafkaConsumer<byte[], byte[]> consumer(IsolationLevel isolation) {
            Properties properties = clientProperties();
            properties.put("isolation.level", isolation.toString());
            properties.put("enable.auto.commit", "false");
            properties.put("auto.offset.reset", "none");
            // The next script's first fetch waits for the last one's of this.
            properties.put("fetch.max.wait.ms", "5");
            properties.put("default.api.timeout.ms", Long.toString(LIMIT.toMillis()));
            return new KafkaConsumer<>(properties, new ByteArrayDeserializer(), new ByteArrayDeserializer());
        }

        /** producer, partition (null: by the key), records: where each went. */
        ObjectNode send(JsonNode step) throws Exception {
            KafkaProducer<byte[], byte[]> producer = producer(step);
            Integer partition = step.get("partition").isNull() ? null : step.get("partition").asInt();
            List<Future<RecordMetadata>> sent = new ArrayList<>();
            for (JsonNode record : step.get("records")) {
                sent.add(producer.send(new ProducerRecord<>(topic, partition, record.get("timestamp").asLong(),
                    bytes(record.get("key")), bytes(record.get("value")), List.of(headers(record)))));
            }
            producer.flush();
            ObjectNode answer = JSON.createObjectNode();
            ArrayNode places = answer.putArray("places");
            ExecutionException failure = null;
            for (Future<RecordMetadata> record : sent) {
                try {
                    places.addArray().add(record.get().partition()).add(record.get().offset());
                } catch (ExecutionException failed) {
                    // Of a record that is only beside a bad one, the client says no more than that.
                    failure = failure == null || failure.getCause().getClass() == KafkaException.class ? failed : failure;
                }
            }
            if (failure != null) {
                throw failure;
            }
            int number = step.get("producer").asInt();
            if (transactionalId(number) != null) {
                JsonNode first = places.get(0);
                var fetched = wire.fetch(topic, first.get(0).asInt(), first.get(1).asLong(), IsolationLevel.READ_UNCOMMITTED, 1);
                lastSent.put(number, ((MemoryRecords) fetched.records()).batches().iterator().next());
            }
            return answer;
        }

        String transactionalId(int producer) {
            JsonNode id = configs.get(producer).get("transactional.id");
            return id == null ? null : id.asText();
        }

        static Header[] headers(JsonNode record) {
            return StreamSupport.stream(record.get("headers").spliterator(), false)
                .map(header -> new RecordHeader(header.get(0).asText(), bytes(header.get(1)))).toArray(Header[]::new);
        }

        /** partition, producer_id, epoch, sequence, records: a batch of exactly this stamp. */
        ObjectNode append(JsonNode step) throws Exception {
            MemoryRecords batch = MemoryRecords.withIdempotentRecords(Compression.NONE, step.get("producer_id").asLong(),
                (short) step.get("epoch").asInt(), step.get("sequence").asInt(), records(step));
            return appended(step, wire.produce(topic, step.get("partition").asInt(), batch));
        }

        /**
         * producer, partition, later, sequence, transactional, records: a batch stamped as the last one that the producer
         * has sent, of an epoch so much later; nothing where it has sent none, or the epoch would be negative.
         */
        ObjectNode appendAs(JsonNode step) throws Exception {
            int number = step.get("producer").asInt();
            RecordBatch last = lastSent.get(number);
            if (last == null || last.producerEpoch() + step.get("later").asInt() < 0) {
                return done();
            }
            long id = last.producerId();
            short epoch = (short) (last.producerEpoch() + step.get("later").asInt());
            int sequence = step.get("sequence").asInt();
            int partition = step.get("partition").asInt();
            if (!step.get("transactional").asBoolean()) {
                MemoryRecords batch = MemoryRecords.withIdempotentRecords(Compression.NONE, id, epoch, sequence, records(step));
                return appended(step, wire.produce(topic, partition, batch));
            }
            MemoryRecords batch = MemoryRecords.withTransactionalRecords(Compression.NONE, id, epoch, sequence, records(step));
            return appended(step, wire.produceVerified(topic, partition, batch, transactionalId(number)));
        }

        static SimpleRecord[] records(JsonNode step) {
            return StreamSupport.stream(step.get("records").spliterator(), false)
                .map(record -> new SimpleRecord(record.get("timestamp").asLong(), bytes(record.get("key")),
                    bytes(record.get("value")), headers(record))).toArray(SimpleRecord[]::new);
        }

        static ObjectNode appended(JsonNode step, long base) {
            ObjectNode answer = JSON.createObjectNode();
            ArrayNode places = answer.putArray("places");
            for (int index = 0; index < step.get("records").size(); index++) {
                places.addArray().add(step.get("partition").asInt()).add(base + index);
            }
            return answer;
        }

        ObjectNode begin(JsonNode step) {
            producer(step).beginTransaction();
            return done();
        }

        /** The markers come later than the answer: they are waited for. */
        ObjectNode end(JsonNode step, boolean commits) throws Exception {
            if (commits) {
                producer(step).commitTransaction();
            } else {
                producer(step).abortTransaction();
            }
            wire.awaitMarkers(transactionalId(step.get("producer").asInt()));
            return done();
        }

        /** producer: waits until the broker has aborted its transaction for having been open for too long. */
        ObjectNode overstay(JsonNode step) throws Exception {
            wire.awaitMarkers(transactionalId(step.get("producer").asInt()), 50);
            return done();
        }

        /** group, partition, offset. */
        ObjectNode commitOffset(JsonNode step) throws Exception {
            OffsetAndMetadata offset = new OffsetAndMetadata(step.get("offset").asLong());
            admin.alterConsumerGroupOffsets(text(step, "group"), Map.of(partition(step), offset)).all().get();
            return done();
        }

        /** group, partition, offset: one that stays when what was committed before expires. */
        ObjectNode commitLater(JsonNode step) throws Exception {
            wire.commit(text(step, "group"), partition(step), step.get("offset").asLong(), LATER.toMillis());
            return done();
        }

        /** The constructor that only brokers of old need is to go; no other takes a group that has no member. */
        @SuppressWarnings("removal")
        ObjectNode sendOffset(JsonNode step) {
            OffsetAndMetadata offset = new OffsetAndMetadata(step.get("offset").asLong());
            producer(step).sendOffsetsToTransaction(
                Map.of(partition(step), offset), new ConsumerGroupMetadata(text(step, "group")));
            return done();
        }

        /** group: its offsets by partition. */
        ObjectNode committed(JsonNode step) throws Exception {
            ObjectNode answer = JSON.createObjectNode();
            ArrayNode committed = answer.putArray("committed");
            admin.listConsumerGroupOffsets(text(step, "group")).partitionsToOffsetAndMetadata().get()
                .forEach((partition, offset) -> committed.addArray().add(partition.partition()).add(offset.offset()));
            return answer;
        }

        /**
         * group, partition: waits until the broker has forgotten what the group has committed, and has looked through all
         * groups once more from the start to the end: what was committed before that is forgotten too, whatever group it
         * looks at first. Two commits that expire at once show it: each of them goes when the groups are looked through, and
         * not the time that the one before went.
         */
        ObjectNode awaitForgotten(JsonNode step) throws Exception {
            awaitNothingCommitted(step);
            for (int time = 0; time < 2; time++) {
                wire.commit(text(step, "group"), partition(step), 0, 1);
                awaitNothingCommitted(step);
            }
            return done();
        }

        void awaitNothingCommitted(JsonNode step) throws Exception {
            long deadline = System.nanoTime() + EXPIRY_LIMIT.toNanos();
            while (!committed(step).get("committed").isEmpty()) {
                if (System.nanoTime() > deadline) {
                    throw new IOException("what " + text(step, "group") + " has committed is kept for " + EXPIRY_LIMIT);
                }
                Thread.sleep(20);
            }
        }

        /** group, partition. */
        ObjectNode deleteOffset(JsonNode step) throws Exception {
            TopicPartition partition = partition(step);
            admin.deleteConsumerGroupOffsets(text(step, "group"), Set.of(partition)).partitionResult(partition).get();
            return done();
        }

        /** group. */
        ObjectNode deleteGroup(JsonNode step) throws Exception {
            admin.deleteConsumerGroups(List.of(text(step, "group"))).all().get();
            return done();
        }

        /** partition, of, plus. */
        ObjectNode delete(JsonNode step) throws Exception {
            long offset = resolve(step);
            long start = admin.deleteRecords(Map.of(partition(step), RecordsToDelete.beforeOffset(offset)))
                .lowWatermarks().get(partition(step)).get().lowWatermark();
            return JSON.createObjectNode().put("deleted", start);
        }

        /**
         * partitions, record: sends the record to each partition, late enough for a new segment to begin with it, and
         * waits until the cleaner has done with all before. Where a transaction is open it would wait for that.
         */
        ObjectNode compact(JsonNode step) throws Exception {
            if (hasOpenTransactions(step)) {
                return done();
            }
            for (int partition = 0; partition < step.get("partitions").asInt(); partition++) {
                ObjectNode send = JSON.createObjectNode().put("producer", step.get("producer").asInt()).put("partition", partition);
                send.putArray("records").add(step.get("record"));
                long offset = send(send).get("places").get(0).get(1).asLong();
                // Where all before is deleted there is nothing to be cleaned.
                if (offset > offsets(send).get("start").asLong()) {
                    awaitCleaned(partition, offset);
                }
            }
            return done();
        }

        void awaitCleaned(int partition, long offset) throws Exception {
            String entry = topic + " " + partition + " ";
            long deadline = System.nanoTime() + LIMIT.toNanos();
            while (true) {
                for (String line : checkpointLines()) {
                    if (line.startsWith(entry) && Long.parseLong(line.substring(entry.length())) >= offset) {
                        return;
                    }
                }
                if (System.nanoTime() > deadline) {
                    throw new IOException(entry + "was not cleaned up to " + offset + " within " + LIMIT);
                }
                Thread.sleep(20);
            }
        }

        List<String> checkpointLines() throws IOException {
            try {
                return Files.readAllLines(data.resolve("cleaner-offset-checkpoint"));
            } catch (NoSuchFileException missing) {
                return List.of();
            }
        }

        /** partitions: keeps nothing until all is gone; nothing where a transaction is open. */
        ObjectNode expire(JsonNode step) throws Exception {
            if (hasOpenTransactions(step)) {
                return done();
            }
            set("retention.ms", "1");
            long deadline = System.nanoTime() + LIMIT.toNanos();
            for (JsonNode partition : partitions(step)) {
                while (true) {
                    ObjectNode offsets = offsets(partition);
                    if (offsets.get("start").equals(offsets.get("end"))) {
                        break;
                    }
                    if (System.nanoTime() > deadline) {
                        throw new IOException("records of " + topic + " did not expire within " + LIMIT + ": " + offsets);
                    }
                    Thread.sleep(20);
                }
            }
            set("retention.ms", "-1");
            return done();
        }

        /**
         * partitions, partition, segments, plus: keeps no more bytes of each partition than this one has behind so many of
         * its segments, and so many more, until what is too much is gone; nothing where a transaction is open. The bytes of
         * its segments before, and where the partitions begin now.
         */
        ObjectNode shed(JsonNode step) throws Exception {
            if (hasOpenTransactions(step)) {
                return done();
            }
            List<Long> before = segmentBytes(step);
            long behind = before.stream().skip(step.get("segments").asLong()).mapToLong(Long::longValue).sum();
            long kept = Math.max(0, behind + step.get("plus").asLong());
            set("retention.bytes", Long.toString(kept));
            long deadline = System.nanoTime() + LIMIT.toNanos();
            for (JsonNode partition : partitions(step)) {
                while (hasExcess(segmentBytes(partition), kept)) {
                    if (System.nanoTime() > deadline) {
                        throw new IOException("more than " + kept + " bytes of " + topic + " are kept for " + LIMIT);
                    }
                    Thread.sleep(20);
                }
            }
            set("retention.bytes", "-1");
            ObjectNode answer = JSON.createObjectNode();
            before.forEach(answer.putArray("shed")::add);
            ArrayNode starts = answer.putArray("starts");
            partitions(step).forEach(partition -> starts.add(offsets(partition).get("start").asLong()));
            return answer;
        }

        /** Whether the first segment is still to go. The last one goes too, unless it is empty. */
        static boolean hasExcess(List<Long> segments, long kept) {
            long first = segments.get(0);
            return (segments.size() > 1 || first > 0) && segments.stream().mapToLong(Long::longValue).sum() - kept >= first;
        }

        /** The bytes of each segment; those before the start of the partition, which may be gone any time, are left out. */
        List<Long> segmentBytes(JsonNode step) throws Exception {
            Path folder = data.resolve(partition(step).toString());
            while (true) {
                long start = offsets(step).get("start").asLong();
                try (Stream<Path> files = Files.list(folder)) {
                    List<Path> segments = files.filter(file -> file.toString().endsWith(".log")).sorted().toList();
                    List<Long> bytes = new ArrayList<>();
                    for (int index = 0; index < segments.size(); index++) {
                        if (index + 1 == segments.size() || base(segments.get(index + 1)) > start) {
                            bytes.add(Files.size(segments.get(index)));
                        }
                    }
                    if (!bytes.isEmpty()) {
                        return bytes;
                    }
                } catch (NoSuchFileException | UncheckedIOException gone) {
                    // It was being deleted: what is left is looked at.
                }
            }
        }

        static long base(Path segment) {
            String name = segment.getFileName().toString();
            return Long.parseLong(name.substring(0, name.indexOf('.')));
        }

        /** partitions: a step for each. */
        static List<JsonNode> partitions(JsonNode step) {
            int count = step.get("partitions").asInt();
            return IntStream.range(0, count).<JsonNode>mapToObj(one -> JSON.createObjectNode().put("partition", one)).toList();
        }

        boolean hasOpenTransactions(JsonNode step) {
            return partitions(step).stream().anyMatch(this::hasOpenTransaction);
        }

        /**
         * Sets the topic's config, and waits until the broker goes by it. It shows what it was told before it goes by that;
         * once it shows what it was told after that, it does.
         */
        void set(String name, String value) throws Exception {
            setAndShow(name, value);
            setAndShow("file.delete.delay.ms", Integer.toString(60_000 + ++settings));
        }

        void setAndShow(String name, String value) throws Exception {
            ConfigResource resource = new ConfigResource(ConfigResource.Type.TOPIC, topic);
            AlterConfigOp set = new AlterConfigOp(new ConfigEntry(name, value), AlterConfigOp.OpType.SET);
            admin.incrementalAlterConfigs(Map.of(resource, List.of(set))).all().get();
            long deadline = System.nanoTime() + LIMIT.toNanos();
            while (!admin.describeConfigs(List.of(resource)).all().get().get(resource).get(name).value().equals(value)) {
                if (System.nanoTime() > deadline) {
                    throw new IOException(name + " of " + topic + " was not set to " + value + " within " + LIMIT);
                }
            }
        }

        /** partition: where it begins and ends. */
        ObjectNode offsets(JsonNode step) {
            TopicPartition partition = partition(step);
            List<TopicPartition> one = List.of(partition);
            KafkaConsumer<byte[], byte[]> consumer = consumers.get(IsolationLevel.READ_UNCOMMITTED);
            return JSON.createObjectNode().put("start", consumer.beginningOffsets(one).get(partition))
                .put("stable", consumers.get(IsolationLevel.READ_COMMITTED).endOffsets(one).get(partition))
                .put("end", consumer.endOffsets(one).get(partition));
        }

        /** of (start, stable, end or within both), plus: an offset relative to what the partition has now. */
        long resolve(JsonNode step) {
            ObjectNode offsets = offsets(step);
            long plus = step.get("plus").asLong();
            return text(step, "of").equals("within")
                ? Math.min(offsets.get("start").asLong() + plus, offsets.get("stable").asLong())
                : offsets.get(text(step, "of")).asLong() + plus;
        }

        boolean hasOpenTransaction(JsonNode partition) {
            ObjectNode offsets = offsets(partition);
            return offsets.get("stable").asLong() < offsets.get("end").asLong();
        }

        /** partition, committed, timestamp. */
        ObjectNode findTime(JsonNode step) {
            TopicPartition partition = partition(step);
            var found = consumers.get(isolation(step)).offsetsForTimes(Map.of(partition, step.get("timestamp").asLong()));
            return found(Optional.ofNullable(found.get(partition)).map(one -> new long[] {one.offset(), one.timestamp()}));
        }

        /** partition, committed: the record with the largest timestamp; nothing of committed ones where some are open. */
        ObjectNode findNewest(JsonNode step) throws Exception {
            if (step.get("committed").asBoolean() && hasOpenTransaction(step)) {
                return done();
            }
            TopicPartition partition = partition(step);
            ListOffsetsOptions options = new ListOffsetsOptions(isolation(step));
            var found = admin.listOffsets(Map.of(partition, OffsetSpec.maxTimestamp()), options).partitionResult(partition).get();
            return found(Optional.of(new long[] {found.offset(), found.timestamp()}).filter(one -> one[0] >= 0));
        }

        /**
         * partition, committed, place, plus: the record with the largest timestamp (place: null), or the first one that is
         * so much later than what is at this place among the offsets that there are; the times at all of these.
         */
        ObjectNode findDated(JsonNode step) throws Exception {
            boolean newest = step.get("place").isNull();
            if (newest && step.get("committed").asBoolean() && hasOpenTransaction(step)) {
                return done();
            }
            ObjectNode bounds = offsets(step);
            ObjectNode answer = JSON.createObjectNode().put("stable", bounds.get("stable").asLong());
            ArrayNode dated = answer.putArray("dated");
            long next = bounds.get("start").asLong();
            while (next < bounds.get("end").asLong()) {
                var fetched = wire.fetch(topic, partition(step).partition(), next, IsolationLevel.READ_UNCOMMITTED, 1 << 20);
                long before = next;
                for (RecordBatch batch : ((MemoryRecords) fetched.records()).batches()) {
                    next = Math.max(next, batch.nextOffset());
                    for (Record record : batch) {
                        if (record.offset() >= before) {
                            dated.addArray().add(record.offset()).add(record.timestamp()).add(batch.isControlBatch());
                        }
                    }
                }
                if (next == before) {
                    throw new IOException("nothing is there at offset " + next + " of " + partition(step));
                }
            }
            ObjectNode question = ((ObjectNode) step.deepCopy());
            if (!newest) {
                JsonNode at = dated.isEmpty() ? null : dated.get(step.get("place").asInt() % dated.size());
                question.put("timestamp", (at == null ? 1 : at.get(1).asLong()) + step.get("plus").asLong());
            }
            answer.set("found", (newest ? findNewest(question) : findTime(question)).get("found"));
            return answer;
        }

        static ObjectNode found(Optional<long[]> place) {
            ObjectNode answer = JSON.createObjectNode();
            if (place.isEmpty()) {
                return answer.putNull("found");
            }
            answer.putArray("found").add(place.get()[0]).add(place.get()[1]);
            return answer;
        }

        /** partition, committed, of, plus: the records from there to the end that there is now. */
        ObjectNode consume(JsonNode step) throws Exception {
            TopicPartition partition = partition(step);
            long from = resolve(step);
            // The consumer would not ask for what lies behind its end.
            wire.fetch(topic, partition.partition(), from, isolation(step), 1);
            KafkaConsumer<byte[], byte[]> consumer = consumers.get(isolation(step));
            long end = consumer.endOffsets(List.of(partition)).get(partition);
            consumer.assign(List.of(partition));
            consumer.seek(partition, from);
            ObjectNode answer = JSON.createObjectNode();
            ArrayNode records = answer.putArray("records");
            long deadline = System.nanoTime() + LIMIT.toNanos();
            while (consumer.position(partition) < end) {
                if (System.nanoTime() > deadline) {
                    throw new IOException("the end of " + partition + " was not reached within " + LIMIT);
                }
                consumer.poll(Duration.ofMillis(100)).forEach(record -> records.add(json(record)));
            }
            return answer;
        }

        static ObjectNode json(ConsumerRecord<byte[], byte[]> record) {
            ObjectNode line = JSON.createObjectNode();
            line.put("topic", record.topic()).put("partition", record.partition()).put("offset", record.offset());
            line.put("timestamp", record.timestamp()).put("key", string(record.key())).put("value", string(record.value()));
            ArrayNode headers = line.putArray("headers");
            record.headers().forEach(header -> headers.addArray().add(header.key()).add(string(header.value())));
            return line;
        }

        /** partition: whose every offset up to the last stable one is, and which transactions were aborted. */
        ObjectNode walk(JsonNode step) throws Exception {
            ObjectNode bounds = offsets(step);
            ObjectNode answer = JSON.createObjectNode();
            ArrayNode entries = answer.putArray("walk");
            ArrayNode aborted = answer.putArray("aborted");
            long next = bounds.get("start").asLong();
            long end = bounds.get("stable").asLong();
            while (next < end) {
                var fetched = wire.fetch(topic, partition(step).partition(), next, IsolationLevel.READ_COMMITTED, 1 << 20);
                Optional.ofNullable(fetched.abortedTransactions()).orElse(List.of())
                    .forEach(one -> aborted.addArray().add(one.producerId()).add(one.firstOffset()));
                long before = next;
                for (RecordBatch batch : ((MemoryRecords) fetched.records()).batches()) {
                    next = Math.max(next, batch.nextOffset());
                    for (Record record : batch) {
                        if (record.offset() >= before) {
                            entries.addArray().add(record.offset()).add(batch.producerId()).add(kind(batch, record))
                                .add(batch.timestampType() == TimestampType.LOG_APPEND_TIME);
                        }
                    }
                }
                if (next == before) {
                    throw new IOException("nothing is there at offset " + next + " of " + partition(step));
                }
            }
            return answer;
        }

        static String kind(RecordBatch batch, Record record) {
            if (batch.isControlBatch()) {
                return ControlRecordType.parse(record.key()).toString();
            }
            return batch.isTransactional() ? "TRANSACTIONAL" : "PLAIN";
        }

        ObjectNode fetchMissing() throws IOException {
            wire.fetch(topic + "-missing", 0, 0, IsolationLevel.READ_UNCOMMITTED, 1);
            return done();
        }
    }

    /** A connection of its own, for what Kafka's clients keep to themselves: it sends Kafka's own messages. */
    static final class Wire implements AutoCloseable {
        final String address;
        Socket socket;
        DataInputStream in;
        DataOutputStream out;
        int correlation;

        Wire(String address) {
            this.address = address;
        }

        ByteBufferAccessor call(ApiKeys api, int apiVersion, Message request) throws IOException {
            connect();
            short version = (short) apiVersion;
            RequestHeaderData header = new RequestHeaderData().setRequestApiKey(api.id).setRequestApiVersion(version)
                .setCorrelationId(++correlation).setClientId("scripts");
            ByteBuffer head = MessageUtil.toByteBufferAccessor(header, api.requestHeaderVersion(version)).buffer();
            ByteBuffer body = MessageUtil.toByteBufferAccessor(request, version).buffer();
            out.writeInt(head.remaining() + body.remaining());
            out.write(MessageUtil.byteBufferToArray(head));
            out.write(MessageUtil.byteBufferToArray(body));
            out.flush();
            byte[] bytes = new byte[in.readInt()];
            in.readFully(bytes);
            ByteBufferAccessor answer = new ByteBufferAccessor(ByteBuffer.wrap(bytes));
            new ResponseHeaderData(answer, api.responseHeaderVersion(version));
            return answer;
        }

        void connect() throws IOException {
            if (socket == null) {
                int colon = address.lastIndexOf(':');
                socket = new Socket(address.substring(0, colon), Integer.parseInt(address.substring(colon + 1)));
                socket.setTcpNoDelay(true);
                socket.setSoTimeout((int) LIMIT.toMillis());
                in = new DataInputStream(new BufferedInputStream(socket.getInputStream()));
                out = new DataOutputStream(new BufferedOutputStream(socket.getOutputStream()));
            }
        }

        @Override
        public void close() throws IOException {
            if (socket != null) {
                socket.close();
                socket = null;
            }
        }

        /** Version 12 is the last one that names topics. */
        long produce(String topic, int partition, MemoryRecords batch) throws IOException {
            return produce(12, topic, partition, batch, null);
        }

        /** A batch of a transaction. Version 11 is the last one that does not add the partition to it. */
        long produceVerified(String topic, int partition, MemoryRecords batch, String transactionalId) throws IOException {
            return produce(11, topic, partition, batch, transactionalId);
        }

        long produce(int version, String topic, int partition, MemoryRecords batch, String transactionalId) throws IOException {
            var data = new ProduceRequestData.PartitionProduceData().setIndex(partition).setRecords(batch);
            var topics = new ProduceRequestData.TopicProduceDataCollection(1);
            topics.add(new ProduceRequestData.TopicProduceData().setName(topic).setPartitionData(List.of(data)));
            var request = new ProduceRequestData().setTransactionalId(transactionalId).setAcks((short) -1)
                .setTimeoutMs((int) LIMIT.toMillis()).setTopicData(topics);
            var answer = new ProduceResponseData(call(ApiKeys.PRODUCE, version, request), (short) version);
            var one = answer.responses().iterator().next().partitionResponses().get(0);
            check(one.errorCode());
            return one.baseOffset();
        }

        /** Version 12 is the last one that names topics. */
        FetchResponseData.PartitionData fetch(String topic, int partition, long from, IsolationLevel isolation, int bytes)
            throws IOException {
            var data = new FetchRequestData.FetchPartition().setPartition(partition).setFetchOffset(from)
                .setPartitionMaxBytes(bytes);
            var topics = List.of(new FetchRequestData.FetchTopic().setTopic(topic).setPartitions(List.of(data)));
            var request = new FetchRequestData().setReplicaState(new FetchRequestData.ReplicaState()).setMaxWaitMs(0)
                .setMinBytes(0).setMaxBytes(bytes).setIsolationLevel(isolation.id()).setSessionEpoch(-1).setTopics(topics);
            var answer = new FetchResponseData(call(ApiKeys.FETCH, 12, request), (short) 12);
            check(answer.errorCode());
            var one = answer.responses().get(0).partitions().get(0);
            check(one.errorCode());
            return one;
        }

        /** An offset of a group without members, which is kept for so long. Version 4 is the last one that says how long. */
        void commit(String group, TopicPartition partition, long offset, long milliseconds) throws Exception {
            var one = new OffsetCommitRequestData.OffsetCommitRequestPartition().setPartitionIndex(partition.partition())
                .setCommittedOffset(offset).setCommittedMetadata("");
            var topics = List.of(new OffsetCommitRequestData.OffsetCommitRequestTopic().setName(partition.topic())
                .setPartitions(List.of(one)));
            var request = new OffsetCommitRequestData().setGroupId(group).setRetentionTimeMs(milliseconds).setTopics(topics);
            long deadline = System.nanoTime() + LIMIT.toNanos();
            while (true) {
                var answer = new OffsetCommitResponseData(call(ApiKeys.OFFSET_COMMIT, 4, request), (short) 4);
                try {
                    check(answer.topics().get(0).partitions().get(0).errorCode());
                    return;
                } catch (RetriableException notYet) {
                    // The coordinator is being made, or reads what it knows.
                    if (System.nanoTime() > deadline) {
                        throw notYet;
                    }
                    Thread.sleep(20);
                }
            }
        }

        static void check(short code) {
            if (code != Errors.NONE.code()) {
                throw Errors.forCode(code).exception();
            }
        }

        /** A topic that was made is not known to the broker at once. */
        void awaitTopic(String topic, int partitions) throws IOException {
            long deadline = System.nanoTime() + LIMIT.toNanos();
            for (int partition = 0; partition < partitions; partition++) {
                while (true) {
                    try {
                        fetch(topic, partition, 0, IsolationLevel.READ_UNCOMMITTED, 1);
                        break;
                    } catch (OffsetOutOfRangeException found) {
                        break;
                    } catch (RuntimeException notYet) {
                        if (System.nanoTime() > deadline) {
                            throw notYet;
                        }
                    }
                }
            }
        }

        /** Waits until the transaction of this id that was decided last is complete: its markers are written. */
        void awaitMarkers(String transactionalId) throws Exception {
            awaitMarkers(transactionalId, 0);
        }

        /** The same, asking no more often than that. */
        void awaitMarkers(String transactionalId, long pauseMs) throws Exception {
            var request = new DescribeTransactionsRequestData().setTransactionalIds(List.of(transactionalId));
            long deadline = System.nanoTime() + LIMIT.toNanos();
            while (System.nanoTime() < deadline) {
                var answer = new DescribeTransactionsResponseData(call(ApiKeys.DESCRIBE_TRANSACTIONS, 0, request), (short) 0);
                var one = answer.transactionStates().get(0);
                String state = one.errorCode() == Errors.NONE.code() ? one.transactionState() : "";
                if (state.equals("CompleteCommit") || state.equals("CompleteAbort") || state.equals("Empty")) {
                    return;
                }
                Thread.sleep(pauseMs);
            }
            throw new IOException("the markers of " + transactionalId + " were not written within " + LIMIT);
        }
    }
}
