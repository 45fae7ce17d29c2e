from skydraft.client import AsyncClient as AsyncClient
from skydraft.client import Client as Client
from skydraft.client import Cloud as Cloud
from skydraft.client import pipeline as pipeline

__version__: str
