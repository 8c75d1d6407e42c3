#!/bin/sh
# The engine's namespace with its search attributes. Repeatable.
set -eu

temporal operator namespace describe --namespace "$TEMPORAL_NAMESPACE" >/dev/null 2>&1 ||
    temporal operator namespace create --namespace "$TEMPORAL_NAMESPACE" --retention 168h
present=$(temporal operator search-attribute list --namespace "$TEMPORAL_NAMESPACE")
for name in OrchestratorTenant OrchestratorPattern OrchestratorWorkflow; do
    case "$present" in
        *"$name"*) ;;
        *) temporal operator search-attribute create --namespace "$TEMPORAL_NAMESPACE" --name "$name" --type Keyword ;;
    esac
done
