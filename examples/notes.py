"""Each tenant's projects, in its own tables: list them, add one.

uvicorn examples.notes:app --port 8001
"""

from datetime import datetime
from uuid import UUID, uuid4

from fastapi import FastAPI
from pydantic import BaseModel, ConfigDict
from sqlalchemy import FetchedValue, select
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from control_plane.tenancy import Settings, TenantSession, install_tenancy


class Base(DeclarativeBase):
    pass


class Project(Base):
    __tablename__ = "tb_project"  # of the reference template, in the home of whoever asks

    tenant_id: Mapped[UUID] = mapped_column(server_default=FetchedValue())
    id: Mapped[UUID] = mapped_column(primary_key=True, default=uuid4)
    name: Mapped[str]
    created_at: Mapped[datetime] = mapped_column(server_default=FetchedValue())


class Note(BaseModel):
    model_config = ConfigDict(from_attributes=True)

    id: UUID
    name: str


class NewNote(BaseModel):
    name: str


app = FastAPI(title="Notes")
install_tenancy(app, Settings())


@app.get("/notes", response_model=list[Note])
async def list_notes(session: TenantSession) -> object:
    return (await session.scalars(select(Project).order_by(Project.created_at))).all()


@app.post("/notes", status_code=201, response_model=Note)
async def add_note(new: NewNote, session: TenantSession) -> object:
    project = Project(name=new.name)
    session.add(project)
    await session.flush()
    return project
