"""What the flights example must answer, computed by DuckDB from the same CSV files.

Writes delays-by-airline.csv, delays-by-weather.csv and late-flights.csv into --out. Nothing here is derived from
Lotic's code: placement is Kafka's (murmur2), lateness is the definition in ARCHITECTURE.md written as SQL.
"""

import argparse
import csv
import pathlib

import duckdb

PARTITIONS = 6

LATE_STEPS = ("delays-by-airline", "delays-by-weather")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    files = {"type": pathlib.Path, "nargs": "+", "metavar": "CSV"}
    parser.add_argument("--flights", required=True, help="read one after the other", **files)
    parser.add_argument("--weather", required=True, help="read together, in order of time", **files)
    parser.add_argument("--airlines", required=True, type=pathlib.Path, metavar="CSV")
    parser.add_argument("--disorder", default="30h", type=milliseconds, help="such as 30h, 90m, 0s (default: 30h)")
    parser.add_argument("--out", required=True, type=pathlib.Path, metavar="DIR")
    options = parser.parse_args()

    database = duckdb.connect()
    load(database, options)
    judge_lateness(database, options.disorder)

    options.out.mkdir(parents=True, exist_ok=True)
    header = ["window_start", "carrier", "airline", "flights", "cancelled", "mean_delay", "max_delay"]
    write(options.out / "delays-by-airline.csv", header, delays_by_airline(database))
    header = ["origin", "visibility", "flights", "mean_delay"]
    write(options.out / "delays-by-weather.csv", header, delays_by_weather(database))
    header = ["step", "scheduled", "carrier", "flight", "origin"]
    write(options.out / "late-flights.csv", header, late_flights(database))


def milliseconds(text):
    """A duration as the example takes it: a whole number and one of ms, s, m, h, d."""
    units = {"ms": 1, "s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}
    number = text.rstrip("dhms")
    return int(number) * units[text[len(number) :]]


def load(database, options):
    """Tables flights, weather and airlines. `place` is a row's place in the file order that they are read in."""
    database.execute(f"create table airlines as select carrier, name from {read_csv(options.airlines)}")

    create_numbered(database, "raw_weather", options.weather)
    # Of several rows of one origin and hour the one read last is the newest.
    database.execute(
        """
        create table weather as
        select origin, epoch_ms(time_hour::timestamp) as event_ms, arg_max(visib, place)::double as visib
        from raw_weather group by all
        """
    )

    create_numbered(database, "raw_flights", options.flights)
    database.execute(
        """
        create table keyed as
        select place, origin, carrier, flight,
            if(tailnum = 'NA' or tailnum = '', carrier || flight, tailnum) as key,
            epoch_ms(time_hour::timestamp) + minute::bigint * 60000 as event_ms,
            dep_time not in ('NA', '') as departed,
            try_cast(dep_delay as bigint) as delay
        from raw_flights
        """
    )
    keys = [key for (key,) in database.execute("select distinct key from keyed").fetchall()]
    database.execute("create table placement (key varchar, partition integer)")
    for start in range(0, len(keys), 1000):
        part = [(key, partition_of(key)) for key in keys[start : start + 1000]]
        values = ", ".join(["(?, ?)"] * len(part))
        database.execute(f"insert into placement values {values}", [item for row in part for item in row])


def create_numbered(database, table, paths):
    """The rows of `paths`, every column as text, with `place` counting them from 0 in file order."""
    for index, path in enumerate(paths):
        numbered = f"select (row_number() over ())::bigint as place, * from {read_csv(path)}"
        if index == 0:
            database.execute(f"create table {table} as {numbered}")
        else:
            start = database.execute(f"select count(*) from {table}").fetchone()[0]
            database.execute(f"insert into {table} by name select place + {start} as place, * exclude place from ({numbered})")


def read_csv(path):
    quoted = str(path).replace("'", "''")
    return f"read_csv('{quoted}', header = true, delim = ',', all_varchar = true, parallel = false)"


def judge_lateness(database, disorder_ms):
    """Table judged: each flight, with whether it is late for the window and, if it departed, for the join.

    The watermark is the partition's own: the largest event time read from it so far, less the disorder.
    """
    database.execute(
        f"""
        create table judged as
        select *,
            watermark >= event_ms - event_ms % 3600000 + 3600000 as late_for_window,
            departed and watermark > event_ms as late_for_join
        from (
            select keyed.*, max(event_ms) over (
                partition by partition order by place rows between unbounded preceding and current row
            ) - {disorder_ms} as watermark
            from keyed join placement using (key)
        )
        """
    )


def delays_by_airline(database):
    rows = database.execute(
        f"""
        with windows as (
            select event_ms - event_ms % 3600000 as window_start, carrier, count(*) as flights,
                count(*) filter (not departed) as cancelled,
                sum(delay) filter (departed) as delay, count(delay) filter (departed) as departed,
                max(delay) filter (departed) as max_delay
            from judged where not late_for_window group by all
        )
        select {utc('window_start')}, carrier, coalesce(name, ''), flights, cancelled, delay, departed, max_delay
        from windows left join airlines using (carrier)
        order by window_start, carrier
        """
    ).fetchall()
    for *columns, delay, departed, max_delay in rows:
        yield [*columns, mean(delay, departed), max_delay]


def delays_by_weather(database):
    rows = database.execute(
        """
        select flight.origin,
            case when visib < 1 then 'below 1' when visib < 5 then '1 to 5' else '5 and up' end as visibility,
            count(*), sum(delay), count(delay)
        from (select origin, event_ms, delay from judged where departed and not late_for_join) as flight
        asof join weather on flight.origin = weather.origin and flight.event_ms >= weather.event_ms
        group by all order by all
        """
    ).fetchall()
    for *columns, delay, departed in rows:
        yield [*columns, mean(delay, departed)]


def late_flights(database):
    rows = []
    for step, column in zip(LATE_STEPS, ("late_for_window", "late_for_join")):
        late = database.execute(f"select {utc('event_ms')}, carrier, flight, origin from judged where {column}").fetchall()
        rows += [(step, *columns) for columns in late]
    # Rows are sorted as lines, bytewise; no field of them needs quotes.
    return sorted(rows, key=lambda row: ",".join(row).encode())


def utc(milliseconds_column):
    return f"strftime(make_timestamp({milliseconds_column} * 1000), '%Y-%m-%dT%H:%M:%SZ')"


def mean(total, count):
    return f"{float(total) / float(count):.2f}" if count else ""


def write(path, header, rows):
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(header)
        writer.writerows(rows)


def partition_of(key):
    """Kafka's default partitioner for records with a key."""
    return (murmur2(key.encode()) & 0x7FFFFFFF) % PARTITIONS


def murmur2(data):
    """The 32-bit murmur2 of org.apache.kafka.common.utils.Utils, unsigned."""
    mask, multiplier = 0xFFFFFFFF, 0x5BD1E995
    value = 0x9747B28C ^ len(data)
    whole = len(data) // 4 * 4
    for start in range(0, whole, 4):
        four = int.from_bytes(data[start : start + 4], "little") * multiplier & mask
        four = (four ^ four >> 24) * multiplier & mask
        value = value * multiplier & mask ^ four
    if rest := data[whole:]:
        value = (value ^ int.from_bytes(rest, "little")) * multiplier & mask
    value = (value ^ value >> 13) * multiplier & mask
    return value ^ value >> 15


if __name__ == "__main__":
    main()
