import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Properties;
import java.util.concurrent.atomic.AtomicLong;
import org.apache.avro.Schema;
import org.apache.avro.generic.GenericDatumReader;
import org.apache.avro.generic.GenericRecord;
import org.apache.avro.io.BinaryDecoder;
import org.apache.avro.io.DecoderFactory;
import org.apache.kafka.common.serialization.Serdes;
import org.apache.kafka.streams.KafkaStreams;
import org.apache.kafka.streams.StreamsBuilder;
import org.apache.kafka.streams.StreamsConfig;
import org.apache.kafka.streams.kstream.Consumed;
import org.apache.kafka.streams.kstream.Produced;

/**
 * Kafka Streams with exactly_once_v2: decodes each event, keeps payments, writes them to a topic as they came. Arguments: brokers, topic to
 * read, topic to write, how many events there are, the schema's file, a directory, the application's id. Prints the number of events
 * that it has kept once all are processed and committed, and ends when its input is closed.
 */
public class KafkaStreamsPeer {
  private static final int PREFIX_BYTES = 5;

  /** Of one thread: Avro's readers and decoders can be used again, by one thread at a time. */
  private static final class Decoding {
    final GenericDatumReader<GenericRecord> reader;
    BinaryDecoder decoder;
    GenericRecord record;

    Decoding(Schema schema) {
      reader = new GenericDatumReader<>(schema);
    }

    GenericRecord of(byte[] value) {
      try {
        decoder = DecoderFactory.get().binaryDecoder(value, PREFIX_BYTES, value.length - PREFIX_BYTES, decoder);
        record = reader.read(record, decoder);
        return record;
      } catch (java.io.IOException error) {
        throw new java.io.UncheckedIOException(error);
      }
    }
  }

  public static void main(String[] arguments) throws Exception {
    String brokers = arguments[0];
    String from = arguments[1];
    String to = arguments[2];
    long count = Long.parseLong(arguments[3]);
    Schema schema = new Schema.Parser().parse(Files.readString(Path.of(arguments[4])));

    Properties settings = new Properties();
    settings.put(StreamsConfig.APPLICATION_ID_CONFIG, arguments[6]);
    settings.put(StreamsConfig.BOOTSTRAP_SERVERS_CONFIG, brokers);
    settings.put(StreamsConfig.STATE_DIR_CONFIG, arguments[5]);
    settings.put(StreamsConfig.PROCESSING_GUARANTEE_CONFIG, StreamsConfig.EXACTLY_ONCE_V2);
    settings.put(StreamsConfig.NUM_STREAM_THREADS_CONFIG, 2);
    settings.put(StreamsConfig.REPLICATION_FACTOR_CONFIG, 1);
    settings.put("auto.offset.reset", "earliest");
    settings.put(StreamsConfig.producerPrefix("compression.type"), "lz4");

    AtomicLong seen = new AtomicLong();
    AtomicLong kept = new AtomicLong();
    ThreadLocal<Decoding> decoding = ThreadLocal.withInitial(() -> new Decoding(schema));
    StreamsBuilder builder = new StreamsBuilder();
    builder
        .stream(from, Consumed.with(Serdes.ByteArray(), Serdes.ByteArray()))
        .filter(
            (key, value) -> {
              boolean payment = "payment.processed".contentEquals((CharSequence) decoding.get().of(value).get("type"));
              seen.incrementAndGet();
              if (payment) {
                kept.incrementAndGet();
              }
              return payment;
            })
        .to(to, Produced.with(Serdes.ByteArray(), Serdes.ByteArray()));

    KafkaStreams streams = new KafkaStreams(builder.build(), settings);
    streams.setUncaughtExceptionHandler(
        error -> {
          error.printStackTrace();
          System.exit(1);
          return null;
        });
    streams.start();
    while (seen.get() < count) {
      System.out.println("seen " + seen.get());
      Thread.sleep(100);
    }
    // Commits what is left.
    streams.close();
    System.out.println("kept " + kept.get());
    System.in.read();
  }
}
