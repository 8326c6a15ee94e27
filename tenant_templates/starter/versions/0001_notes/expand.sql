-- A table of the tenant's. tenant_id leads every key and every index; protect_table() keeps tenants apart.

CREATE TABLE tb_note (
    tenant_id uuid NOT NULL DEFAULT tenancy.current_tenant_id(),
    id uuid NOT NULL DEFAULT gen_random_uuid(),
    title text NOT NULL CHECK (length(title) BETWEEN 1 AND 200),
    created_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (tenant_id, id)
);
CREATE INDEX tb_note_created_at ON tb_note (tenant_id, created_at, id);
SELECT tenancy.protect_table('tb_note');
