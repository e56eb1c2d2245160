from .api import Anthropic, Client
