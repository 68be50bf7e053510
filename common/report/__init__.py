"""Tables, intervals and figures of reports."""
