#!/bin/sh
# Temporal's two databases, made or brought up to date. Runs in the admin-tools image before the server starts.
set -eu

prepare() { # database, folder of its schema
    tool="temporal-sql-tool --plugin postgres12 --endpoint postgres --port 5432 --user $SQL_USER --database $1"
    update="$tool update-schema --schema-dir /etc/temporal/schema/postgresql/v12/$2/versioned"
    # An update works on every start but the first, when there is no schema to update yet.
    $update && return
    echo "making the database $1"
    $tool create
    $tool setup-schema --version 0.0
    $update
}

prepare temporal temporal
prepare temporal_visibility visibility
