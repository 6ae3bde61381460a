"""Who the images of a plain folder show, as far as that is known, and the records of them."""

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from pipeline.manifest import ABNORMAL, DIAGNOSES
from sources.folders.files import Picture, image_ids, named, same_content
from sources.folders.table import Entry
from sources.records import ImageRecord, Records

PATIENT = re.compile(r"P_\d+")  # in a name, as the probe reads it


@dataclass(frozen=True)
class Patients:
    """Which images must stay together."""

    of: Mapping[str, str]  # by the name of the file
    note: str  # by which rule
    known: bool  # whether they are persons


def to_records(
    source: Path,
    entries: Sequence[Entry],
    meant: Mapping[str, str],
    aside: Sequence[tuple[str, str]],
    notes: Sequence[str],
) -> Records:
    """Return the records of a folder, the same picture twice in one split.

    Args:
        source: The folder.
        entries: What is known of its images; several of an image where it has several lesions.
        meant: The diagnosis of each class.
        aside: (what, reason) of what is not used already.
        notes: What is known to be worth knowing.
    """
    more_aside, more_notes = [*aside], [*notes]
    joined = _one_each(entries, meant, more_aside, more_notes)
    same = same_content(source, [entry.picture for entry in joined])
    joined = _without_contradictions(joined, same, meant, more_aside)
    kept = {entry.picture.name for entry in joined}
    same = [[one for one in group if one.name in kept] for group in same]
    same = [group for group in same if len(group) > 1]
    ids = image_ids([entry.picture for entry in joined])
    patients = _patients(joined, ids, same)
    more_notes.append(patients.note)
    if same:
        count = sum(map(len, same))
        more_notes.append(
            f"the same picture more than once: {count:,} files of {len(same):,} pictures "
            f"({named(same[0][0].name)}, {named(same[0][1].name)}); each stays in one split"
        )
    more_notes += _moved(joined, patients)
    records = tuple(_record(entry, meant, ids, patients) for entry in joined)
    return Records(
        records=records,
        set_aside=tuple(more_aside),
        notes=tuple(more_notes),
        has_patients=patients.known,
        facts={"classes": dict(sorted(meant.items())), "same_pictures": len(same)},
    )


def _one_each(
    entries: Sequence[Entry],
    meant: Mapping[str, str],
    aside: list[tuple[str, str]],
    notes: list[str],
) -> list[Entry]:
    """Join the rows on one image: any malignant one makes it malignant."""
    by_file: dict[str, list[Entry]] = defaultdict(list)
    for entry in entries:
        by_file[entry.picture.name].append(entry)
    joined, several = [], 0
    for _, mine in sorted(by_file.items()):
        first = mine[0]
        same = [one for one in mine if (one.patient, one.split) == (first.patient, first.split)]
        aside += [(one.where, f"says another patient or split of {named(one.picture.name)} than "
                   f"{first.where}") for one in mine if one not in same]  # fmt: skip
        several += len(same) > 1
        worst = max(same, key=lambda one: (ABNORMAL, *DIAGNOSES).index(meant[one.label]))
        findings = "|".join(dict.fromkeys(one.finding for one in same if one.finding))
        joined.append(replace(worst, finding=findings))
    if several:
        notes.append(f"images with several rows: {several:,}; the worst diagnosis counts")
    return joined


def _without_contradictions(
    entries: Sequence[Entry],
    same: Sequence[Sequence[Picture]],
    meant: Mapping[str, str],
    aside: list[tuple[str, str]],
) -> list[Entry]:
    """Set aside the same picture under two diagnoses: one of them is wrong."""
    diagnoses = {entry.picture.name: meant[entry.label] for entry in entries}
    wrong = set()
    for group in same:
        if len({diagnoses[one.name] for one in group}) > 1:
            for one in group:
                other = next(x for x in group if diagnoses[x.name] != diagnoses[one.name])
                reason = f"is {diagnoses[one.name]}, and the same picture as {named(other.name)}"
                aside.append((one.name, f"{reason}, which is {diagnoses[other.name]}"))
                wrong.add(one.name)
    return [entry for entry in entries if entry.picture.name not in wrong]


def _patients(
    entries: Sequence[Entry], ids: Mapping[str, str], same: Sequence[Sequence[Picture]]
) -> Patients:
    """Return who the images show: by the table, by P_number in the names, or each its own."""
    by_table = any(entry.patient for entry in entries)
    known: dict[str, str] = {}
    for entry in entries:
        match = None if by_table else PATIENT.search(entry.picture.name)
        if who := entry.patient or (match[0] if match else ""):
            known[entry.picture.name] = who
    patients = {entry.picture.name: ids[entry.picture.name] for entry in entries} | known
    for group in same:
        who = next((known[one.name] for one in group if one.name in known), patients[group[0].name])
        patients |= {one.name: who for one in group if one.name not in known}
    nameless = len(entries) - len(known)
    rule = "the table" if by_table else "P_number in the names of the images"
    note = f"patients are told by {rule}"
    if not known:
        note = "neither table nor names tell patients: each picture counts as its own"
    elif nameless:
        note += f"; {nameless:,} of {len(entries):,} images have none, and each counts as its own"
    return Patients(patients, note, known=bool(known) and not nameless)


def _moved(entries: Sequence[Entry], patients: Patients) -> list[str]:
    """Say which patients are in two of the folder's own splits: they are moved to one."""
    splits: dict[str, set[str]] = defaultdict(set)
    for entry in entries:
        if entry.split:
            splits[patients.of[entry.picture.name]].add(entry.split)
    both = sorted(who for who, found in splits.items() if len(found) > 1)
    if not both:
        return []
    first = " and ".join(sorted(splits[both[0]]))
    what = "patients" if patients.known else "patients or pictures"
    return [
        f"{what} in two of its own splits: {len(both):,} ({named(both[0])}: {first}); "
        "all images of each are moved to its test split, or else to val"
    ]


def _record(
    entry: Entry, meant: Mapping[str, str], ids: Mapping[str, str], patients: Patients
) -> ImageRecord:
    picture = entry.picture
    return ImageRecord(
        image_id=ids[picture.name],
        patient_id=patients.of[picture.name],
        diagnosis=meant[entry.label],
        file=picture.name,
        size=picture.size,
        changed=picture.changed,
        split=entry.split,
        laterality=entry.laterality,
        view=entry.view,
        finding=entry.finding,
        pathology=entry.label,
        density=entry.density,
        assessment=entry.assessment,
        age=entry.age,
        mask_files=picture.masks,
    )
