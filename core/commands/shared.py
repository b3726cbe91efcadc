"""What commands that look into a trained model share, in one place: their options, and what they do with the model."""

from __future__ import annotations

from distk.commands.arguments import Checkpoint as Checkpoint
from distk.commands.arguments import DataDir as DataDir
from distk.commands.arguments import DataName as DataName
from distk.commands.arguments import Device as Device
from distk.commands.arguments import Json as Json
from distk.commands.arguments import Out as Out
from distk.commands.arguments import Seed as Seed
from distk.commands.arguments import Split as Split
from distk.commands.bundles import UNFIT as UNFIT
from distk.commands.bundles import Look as Look
from distk.commands.bundles import OnData as OnData
from distk.commands.bundles import OnModel as OnModel
from distk.commands.bundles import OnRows as OnRows
from distk.commands.onmodel import SECONDS as SECONDS
from distk.commands.onmodel import beside as beside
from distk.commands.onmodel import check_folder as check_folder
from distk.commands.onmodel import choose_rows as choose_rows
from distk.commands.onmodel import class_words as class_words
from distk.commands.onmodel import forms as forms
from distk.commands.onmodel import item_words as item_words
from distk.commands.onmodel import its_data as its_data
from distk.commands.onmodel import opened as opened
from distk.commands.onmodel import present as present
from distk.commands.onmodel import report as report
from distk.commands.onmodel import require as require
from distk.commands.onmodel import scaled as scaled
from distk.commands.onmodel import titled as titled
from distk.commands.onmodel import written_to as written_to
