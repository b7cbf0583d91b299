import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import com.fasterxml.jackson.databind.node.ObjectNode;
import java.io.ByteArrayOutputStream;
import java.io.PrintStream;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.time.Duration;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.Properties;
import java.util.concurrent.ExecutionException;
import java.util.stream.StreamSupport;
import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.clients.admin.AlterConfigOp;
import org.apache.kafka.clients.admin.ConfigEntry;
import org.apache.kafka.clients.admin.NewTopic;
import org.apache.kafka.clients.admin.RecordsToDelete;
import org.apache.kafka.clients.consumer.ConsumerGroupMetadata;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.consumer.OffsetAndMetadata;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.config.ConfigResource;
import org.apache.kafka.common.header.Header;
import org.apache.kafka.common.header.internals.RecordHeader;
import org.apache.kafka.common.serialization.ByteArrayDeserializer;
import org.apache.kafka.common.serialization.ByteArraySerializer;

/**
 * Does what a script says, with Kafka's own clients and tools, in one JVM: `java Client.java SCRIPT [ADDRESS]`.
 * A script holds one JSON object a line; {@link #run} lists what they may be. What is read is printed as one
 * JSON object a line. The first failure ends the program.
 */
public class Client {
    /** How long anything is waited for. */
    static final Duration LIMIT = Duration.ofSeconds(60);

    static final ObjectMapper JSON = new ObjectMapper();

    final String address;
    final PrintStream out = System.out;
    final Map<String, KafkaProducer<byte[], byte[]>> producers = new HashMap<>();
    Admin admin;

    Client(String address) {
        this.address = address;
    }

    public static void main(String[] arguments) throws Exception {
        Client client = new Client(arguments.length > 1 ? arguments[1] : "");
        for (String line : Files.readAllLines(Path.of(arguments[0]))) {
            client.run(JSON.readTree(line));
        }
        client.out.flush();
        // No producer is closed: that would abort the transaction that a script has left open.
        System.exit(0);
    }

    void run(JsonNode step) throws Exception {
        switch (step.get("do").asText()) {
            case "create" -> create(step);
            case "producer" -> producer(step);
            case "send" -> send(step);
            case "fill" -> fill(step);
            case "alter" -> alter(step);
            case "await-cleaned" -> awaitCleaned(step);
            case "flush" -> producerOf(step).flush();
            case "begin" -> producerOf(step).beginTransaction();
            case "commit" -> producerOf(step).commitTransaction();
            case "abort" -> producerOf(step).abortTransaction();
            case "send-offset" -> producerOf(step).sendOffsetsToTransaction(
                Map.of(partition(step), offset(step)), metadata(text(step, "group")));
            case "commit-offset" -> admin().alterConsumerGroupOffsets(
                text(step, "group"), Map.of(partition(step), offset(step))).all().get();
            case "delete-records" -> admin().deleteRecords(Map.of(
                partition(step), RecordsToDelete.beforeOffset(step.get("offset").asLong()))).all().get();
            case "consume" -> consume(step);
            case "await-compaction" -> awaitCompaction(step);
            case "tool" -> tool(step);
            default -> throw new IllegalArgumentException("unknown step: " + step);
        }
    }

    /** topic, partitions, config. */
    void create(JsonNode step) throws Exception {
        Map<String, String> config = new HashMap<>();
        step.get("config").properties().forEach(entry -> config.put(entry.getKey(), entry.getValue().asText()));
        NewTopic topic = new NewTopic(text(step, "topic"), Optional.of(step.get("partitions").asInt()), Optional.empty());
        admin().createTopics(List.of(topic.configs(config))).all().get();
    }

    /** producer: its name; config. One with a `transactional.id` is made ready for transactions. */
    void producer(JsonNode step) {
        Properties properties = new Properties();
        properties.put("bootstrap.servers", address);
        step.get("config").properties().forEach(entry -> properties.put(entry.getKey(), entry.getValue().asText()));
        KafkaProducer<byte[], byte[]> producer =
            new KafkaProducer<>(properties, new ByteArraySerializer(), new ByteArraySerializer());
        if (properties.containsKey("transactional.id")) {
            producer.initTransactions();
        }
        producers.put(text(step, "producer"), producer);
    }

    /** producer, topic, partition, timestamp, key, value (both may be null), headers as pairs. */
    void send(JsonNode step) throws ExecutionException, InterruptedException {
        List<Header> headers = new ArrayList<>();
        for (JsonNode header : step.get("headers")) {
            headers.add(new RecordHeader(header.get(0).asText(), bytes(header.get(1))));
        }
        producerOf(step).send(new ProducerRecord<>(text(step, "topic"), step.get("partition").asInt(),
            step.get("timestamp").asLong(), bytes(step.get("key")), bytes(step.get("value")), headers));
    }

    /** producer, topic, records, keys, bytes: writes each of so many keys again and again, in turn, and not in order. */
    void fill(JsonNode step) {
        long keys = step.get("keys").asLong();
        // No factor in common with the number of keys: they are all taken.
        long stride = (keys / 2 + 1) | 1;
        byte[] value = new byte[step.get("bytes").asInt()];
        Arrays.fill(value, (byte) 'v');
        for (long index = 0; index < step.get("records").asLong(); index++) {
            byte[] key = String.format("key-%012d", index * stride % keys).getBytes(StandardCharsets.UTF_8);
            producerOf(step).send(new ProducerRecord<>(text(step, "topic"), 0, key, value));
        }
        producerOf(step).flush();
    }

    /** topic, config: sets these settings. */
    void alter(JsonNode step) throws Exception {
        List<AlterConfigOp> settings = new ArrayList<>();
        step.get("config").properties().forEach(entry -> settings.add(new AlterConfigOp(
            new ConfigEntry(entry.getKey(), entry.getValue().asText()), AlterConfigOp.OpType.SET)));
        ConfigResource topic = new ConfigResource(ConfigResource.Type.TOPIC, text(step, "topic"));
        admin().incrementalAlterConfigs(Map.of(topic, settings)).all().get();
    }

    /** data, topic: waits until partition 0 was compacted for the first time, by what the broker notes in its data. */
    void awaitCleaned(JsonNode step) throws Exception {
        Path checkpoint = Path.of(text(step, "data"), "cleaner-offset-checkpoint");
        String partition = text(step, "topic") + " 0 ";
        long deadline = System.nanoTime() + LIMIT.toNanos();
        while (!Files.exists(checkpoint) || Files.readAllLines(checkpoint).stream().noneMatch(line -> line.startsWith(partition))) {
            if (System.nanoTime() > deadline) {
                throw new IllegalStateException(partition + "was not compacted within " + LIMIT);
            }
            Thread.sleep(50);
        }
    }

    /** topics, isolation: prints every record up to the end that there is now. */
    void consume(JsonNode step) throws Exception {
        try (KafkaConsumer<byte[], byte[]> consumer = consumer(text(step, "isolation"))) {
            List<TopicPartition> partitions = new ArrayList<>();
            for (JsonNode topic : step.get("topics")) {
                consumer.partitionsFor(topic.asText())
                    .forEach(info -> partitions.add(new TopicPartition(info.topic(), info.partition())));
            }
            consumer.assign(partitions);
            consumer.seekToBeginning(partitions);
            consumer.beginningOffsets(partitions).forEach((partition, offset) -> print("start", partition, offset));
            Map<TopicPartition, Long> ends = consumer.endOffsets(partitions);
            ends.forEach((partition, offset) -> print("end", partition, offset));
            long deadline = System.nanoTime() + LIMIT.toNanos();
            while (!ends.entrySet().stream().allMatch(end -> consumer.position(end.getKey()) >= end.getValue())) {
                if (System.nanoTime() > deadline) {
                    throw new IllegalStateException("the end was not reached within " + LIMIT);
                }
                consumer.poll(Duration.ofMillis(100)).forEach(this::print);
            }
        }
    }

    /** topic, records: waits until so few records at most are left in partition 0. */
    void awaitCompaction(JsonNode step) throws Exception {
        TopicPartition partition = new TopicPartition(text(step, "topic"), 0);
        long deadline = System.nanoTime() + LIMIT.toNanos();
        while (count(partition) > step.get("records").asLong()) {
            if (System.nanoTime() > deadline) {
                throw new IllegalStateException(partition + " still holds " + count(partition) + " records");
            }
            Thread.sleep(100);
        }
    }

    long count(TopicPartition partition) {
        try (KafkaConsumer<byte[], byte[]> consumer = consumer("read_uncommitted")) {
            consumer.assign(List.of(partition));
            consumer.seekToBeginning(List.of(partition));
            long end = consumer.endOffsets(List.of(partition)).get(partition);
            long count = 0;
            while (consumer.position(partition) < end) {
                count += consumer.poll(Duration.ofMillis(100)).count();
            }
            return count;
        }
    }

    /** class, arguments: runs its main method and prints what that said. */
    void tool(JsonNode step) throws Exception {
        String[] arguments = StreamSupport.stream(step.get("arguments").spliterator(), false)
            .map(JsonNode::asText).toArray(String[]::new);
        ByteArrayOutputStream stdout = new ByteArrayOutputStream();
        ByteArrayOutputStream stderr = new ByteArrayOutputStream();
        PrintStream terminal = System.err;
        System.setOut(new PrintStream(stdout, true, StandardCharsets.UTF_8));
        System.setErr(new PrintStream(stderr, true, StandardCharsets.UTF_8));
        try {
            Class.forName(text(step, "class")).getMethod("main", String[].class).invoke(null, (Object) arguments);
        } finally {
            System.setOut(out);
            System.setErr(terminal);
        }
        ObjectNode line = JSON.createObjectNode();
        line.put("stdout", stdout.toString(StandardCharsets.UTF_8));
        line.put("stderr", stderr.toString(StandardCharsets.UTF_8));
        out.println(line);
    }

    KafkaConsumer<byte[], byte[]> consumer(String isolation) {
        Properties properties = new Properties();
        properties.put("bootstrap.servers", address);
        properties.put("isolation.level", isolation);
        properties.put("enable.auto.commit", "false");
        return new KafkaConsumer<>(properties, new ByteArrayDeserializer(), new ByteArrayDeserializer());
    }

    void print(ConsumerRecord<byte[], byte[]> record) {
        ObjectNode line = JSON.createObjectNode();
        line.put("topic", record.topic()).put("partition", record.partition()).put("offset", record.offset());
        line.put("timestamp", record.timestamp()).put("key", string(record.key())).put("value", string(record.value()));
        var headers = line.putArray("headers");
        record.headers().forEach(header -> headers.addArray().add(header.key()).add(string(header.value())));
        out.println(line);
    }

    void print(String what, TopicPartition partition, long offset) {
        out.println(JSON.createObjectNode().put("topic", partition.topic())
            .put("partition", partition.partition()).put(what, offset));
    }

    Admin admin() {
        if (admin == null) {
            admin = Admin.create(Map.of("bootstrap.servers", address));
        }
        return admin;
    }

    KafkaProducer<byte[], byte[]> producerOf(JsonNode step) {
        return producers.get(text(step, "producer"));
    }

    /** The constructor that only brokers of old need is to go; no other takes a group that has no member. */
    @SuppressWarnings("removal")
    static ConsumerGroupMetadata metadata(String group) {
        return new ConsumerGroupMetadata(group);
    }

    static TopicPartition partition(JsonNode step) {
        return new TopicPartition(text(step, "topic"), step.get("partition").asInt());
    }

    static OffsetAndMetadata offset(JsonNode step) {
        return new OffsetAndMetadata(step.get("offset").asLong());
    }

    static String text(JsonNode step, String field) {
        return step.get(field).asText();
    }

    static byte[] bytes(JsonNode text) {
        return text.isNull() ? null : text.asText().getBytes(StandardCharsets.UTF_8);
    }

    static String string(byte[] bytes) {
        return bytes == null ? null : new String(bytes, StandardCharsets.UTF_8);
    }
}
