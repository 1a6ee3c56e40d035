-- The flights job's tables, computed from the CSV without the job: run `sqlite3 < truth.sql` beside flights.csv.
-- Writes one tab-separated file a table, rows in no particular order. File order is rowid order.

.mode csv
.import flights.csv raw
.mode list
.separator "\t"
.nullvalue ""

CREATE TEMP TABLE flights AS
SELECT rowid AS position,
    year * 10000 + month * 100 + day AS date,
    CASE WHEN dep_delay IN ('NA', '') THEN NULL ELSE CAST(dep_delay AS INTEGER) END AS departure_delay,
    CASE WHEN arr_delay IN ('NA', '') THEN NULL ELSE CAST(arr_delay AS INTEGER) END AS arrival_delay,
    CASE WHEN tailnum IN ('NA', '') THEN NULL ELSE tailnum END AS tail_number,
    carrier, flight AS number, origin, dest AS destination
FROM raw;

-- Cancelled flights never left: they move no aircraft.
CREATE TEMP TABLE departures AS
SELECT *, lag(origin) OVER aircraft AS previous_origin, row_number() OVER latest AS recency
FROM flights
WHERE tail_number IS NOT NULL AND departure_delay IS NOT NULL
WINDOW aircraft AS (PARTITION BY tail_number ORDER BY position),
    latest AS (PARTITION BY tail_number ORDER BY position DESC);

-- aircraft: tail number, departures, destinations, broken rotations, worst arrival delay, last departure
.once aircraft.tsv
SELECT tail_number, count(*), count(DISTINCT destination),
    sum(previous_origin IS NOT NULL AND previous_origin <> origin),
    max(arrival_delay),
    max(CASE WHEN recency = 1 THEN origin END),
    max(CASE WHEN recency = 1 THEN carrier || number END),
    max(CASE WHEN recency = 1 THEN date END)
FROM departures GROUP BY tail_number;

-- visits: tail number, destination, departures
.once visits.tsv
SELECT tail_number, destination, count(*) FROM departures GROUP BY tail_number, destination;

-- days: tail number, date, flights that arrived, sum of their arrival delays, worst
.once days.tsv
SELECT tail_number, date, count(*), sum(arrival_delay), max(arrival_delay)
FROM flights WHERE tail_number IS NOT NULL AND arrival_delay IS NOT NULL GROUP BY tail_number, date;

-- carriers: carrier, flights, cancelled, without tail number, deliveries dropped as duplicates,
--           arrivals, sum of arrival delays, sum of their squares, worst
.once carriers.tsv
SELECT carrier, count(*), sum(departure_delay IS NULL), sum(tail_number IS NULL),
    sum(position % 97 = 0 AND position + 40 <= (SELECT count(*) FROM flights)),
    count(arrival_delay), coalesce(sum(arrival_delay), 0), coalesce(sum(arrival_delay * arrival_delay), 0),
    max(arrival_delay)
FROM flights GROUP BY carrier;
