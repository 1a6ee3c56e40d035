#!/usr/bin/env bash
# Makes the certificates of the tests anew, valid for a hundred years. Needs openssl. The keys protect nothing.
set -euo pipefail
cd "$(dirname "$0")"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
key() { openssl ecparam -name prime256v1 -genkey -noout -out "$1"; }

authority() { # name
    key "$work/$1-key.pem"
    openssl req -x509 -new -key "$work/$1-key.pem" -subj "/CN=$1" -days 36500 -out "$1.pem"
}
signed() { # name authority subject-alternative-name start end
    key "$1-key.pem"
    openssl req -new -key "$1-key.pem" -subj "/CN=$1" -out "$work/$1.csr"
    : >"$work/index"
    openssl rand -hex 8 >"$work/serial"
    cat >"$work/ca.cnf" <<CNF
[ca]
default_ca = one
[one]
database = $work/index
serial = $work/serial
new_certs_dir = $work
default_md = sha256
policy = any
x509_extensions = extensions
unique_subject = no
[any]
commonName = supplied
[extensions]
subjectAltName = $3
CNF
    openssl ca -batch -notext -config "$work/ca.cnf" -cert "$2.pem" -keyfile "$work/$2-key.pem" \
        -startdate "$4" -enddate "$5" -in "$work/$1.csr" -out "$1.pem" 2>/dev/null
}

authority authority
authority stranger
signed server authority "DNS:localhost,IP:127.0.0.1,IP:::1" 20200101000000Z 21200101000000Z
signed expired authority "DNS:localhost,IP:127.0.0.1,IP:::1" 20200101000000Z 20210101000000Z
signed elsewhere authority "DNS:elsewhere.example" 20200101000000Z 21200101000000Z
signed impostor stranger "DNS:localhost,IP:127.0.0.1,IP:::1" 20200101000000Z 21200101000000Z
signed client authority "DNS:worker" 20200101000000Z 21200101000000Z
