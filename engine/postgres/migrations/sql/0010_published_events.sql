-- Which closed executions have had all their facts published. What is open is looked at in its turn; what is closed, until
-- it is confirmed.

ALTER TABLE workflow_executions ADD COLUMN published boolean NOT NULL DEFAULT false;
COMMENT ON COLUMN workflow_executions.published IS 'closed, and all its facts confirmed to be on the streams';

CREATE INDEX idx_execution_unpublished ON workflow_executions (completed_at)
    WHERE completed_at IS NOT NULL AND NOT published;

GRANT UPDATE (published) ON workflow_executions TO orchestrator_maintenance;
GRANT SELECT ON execution_events TO orchestrator_maintenance;

-- What happens to a closed execution (a hook that runs behind it) is published too.
CREATE FUNCTION unconfirm_publication() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    NEW.published := false;
    RETURN NEW;
END $$;
REVOKE ALL ON FUNCTION unconfirm_publication() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION unconfirm_publication() TO orchestrator_app, orchestrator_maintenance;
CREATE TRIGGER unconfirm_publication BEFORE UPDATE OF last_sequence ON workflow_executions FOR EACH ROW
    WHEN (OLD.published AND NEW.last_sequence <> OLD.last_sequence)
    EXECUTE FUNCTION unconfirm_publication();
