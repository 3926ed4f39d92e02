CARGO ?= cargo

PREFIX ?= /usr/local
BINARY = $(or $(CARGO_TARGET_DIR),target)/release/pipeline

.PHONY: build run services test kafka-up kafka-down s3-up s3-down json-up json-down lint bench bench-kafka bench-s3 bench-http chaos install

build:            ## The release binary, target/release/pipeline
	$(CARGO) build --release --locked

run: build        ## Two small files into ./out, in batches of 50
	$(BINARY) -s file -b 50 testdata/data1.json testdata/data2.json

services:         ## For the tests, once: Apache Kafka, from Maven (Java 17 or newer), an S3 server (Go), a JSON server (Node.js), in CI a browser
	tests/services/kafka.sh fetch
	tests/services/s3.sh fetch
	tests/services/json.sh fetch
	tests/browser.sh

test: services    ## All tests; those with a real Kafka, S3 or JSON server are skipped aloud where Java, Maven, Go or Node.js is missing, unless CI=true
	$(CARGO) test --locked

kafka-up:         ## A Kafka to play with on localhost:9092, in the background
	tests/services/kafka.sh fetch
	tests/services/kafka.sh up

kafka-down:       ## Stops it
	tests/services/kafka.sh down

s3-up:            ## An S3 server to play with on localhost:9000, in the background
	tests/services/s3.sh fetch
	tests/services/s3.sh up

s3-down:          ## Stops it
	tests/services/s3.sh down

json-up:          ## A JSON API to play with on localhost:3000, in the background
	tests/services/json.sh fetch
	tests/services/json.sh up

json-down:        ## Stops it
	tests/services/json.sh down

lint:             ## fmt, clippy, docs: no warnings
	$(CARGO) fmt --check
	$(CARGO) clippy --locked --all-targets -- -D warnings
	$(CARGO) clippy --locked --no-default-features --lib --examples -- -D warnings
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --locked --no-deps --no-default-features
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --locked --no-deps

bench:            ## The table of the README (BENCH_MB, BENCH_ROUNDS)
	$(CARGO) bench --locked --bench table

bench-kafka: services ## Kafka in and out against Kafka's own tools (BENCH_RECORDS, BENCH_ROUNDS)
	KAFKA_JIT=4 KAFKA_HEAP=1g $(CARGO) bench --locked --bench kafka

bench-s3: services ## Kafka to S3 against Kafka's own consumer, and uploads against a loop of PUT (BENCH_RECORDS, BENCH_ROUNDS)
	KAFKA_JIT=4 KAFKA_HEAP=1g $(CARGO) bench --locked --bench s3

bench-http: services ## HTTP to a null sink, a file and a directory against a bare loop of ureq (BENCH_MB, BENCH_ROUNDS)
	$(CARGO) bench --locked --bench http

chaos: services   ## Kafka to S3 while everything breaks: rounds of a minute with the seeds SEED, SEED + 1, ... (MINUTES=10)
	CHAOS_MINUTES=$(or $(MINUTES),10) CHAOS_SEED=$(SEED) $(CARGO) test --locked --test services whatever_breaks -- --nocapture

install: build    ## Binary, man page, completions and the configuration's template under PREFIX (and DESTDIR)
	install -d $(DESTDIR)$(PREFIX)/bin $(DESTDIR)$(PREFIX)/share/man/man1 $(DESTDIR)$(PREFIX)/share/doc/pipeline \
	  $(DESTDIR)$(PREFIX)/share/bash-completion/completions $(DESTDIR)$(PREFIX)/share/zsh/site-functions \
	  $(DESTDIR)$(PREFIX)/share/fish/vendor_completions.d
	install -m 755 $(BINARY) $(DESTDIR)$(PREFIX)/bin/pipeline
	$(BINARY) --man > $(DESTDIR)$(PREFIX)/share/man/man1/pipeline.1
	$(BINARY) --completions bash > $(DESTDIR)$(PREFIX)/share/bash-completion/completions/pipeline
	$(BINARY) --completions zsh > $(DESTDIR)$(PREFIX)/share/zsh/site-functions/_pipeline
	$(BINARY) --completions fish > $(DESTDIR)$(PREFIX)/share/fish/vendor_completions.d/pipeline.fish
	install -m 644 config.toml $(DESTDIR)$(PREFIX)/share/doc/pipeline/config.toml
