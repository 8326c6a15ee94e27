-- An additive change: a constant default, so that no row is rewritten and the release before goes on working.
ALTER TABLE tb_ticket
    ADD COLUMN priority text NOT NULL DEFAULT 'normal' CHECK (priority IN ('normal', 'high')),
    ADD COLUMN due_at timestamptz;
